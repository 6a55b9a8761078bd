"""Credible sets in the forms that people have them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scbasset_ism.credible import COLUMNS, read_credible_sets
from scbasset_ism.errors import CredibleSetError

FINNGEN = """trait region v chromosome position allele1 allele2 maf beta prob cs cs_specific_prob
T2D chr20:1-9 20:1000:A:G chr20 1000 A G 0.2 -0.5 0.9 1 0.89
T2D chr20:1-9 20:2000:C:CT chr20 2000 C CT 0.7 0.1 0.02 -1 0
""".replace(" ", "\t")
SUSIE = """variant_id,chrom,pos,effect_allele,other_allele,pip,beta,cs
rs1,20,1000,g,a,0.9,-0.5,1
rs2,20,2000,CT,C,0.02,0.1,NA
"""
FINEMAP = """index rsid chromosome position allele1 allele2 maf beta se z prob log10bf
1 rs1 20 1000 A G 0.2 -0.5 0.1 -5 0.9 3
2 rs2 20 2000 C CT 0.3 0.1 0.1 1 0.02 -1
"""
POLYFUN = """CHR SNP BP A1 A2 Z PIP CREDIBLE_SET
20 rs1 1000 G A -5 0.9 1
20 rs2 2000 CT C 1 0.02 0
""".replace(" ", "\t")
GENETICS = """study_id tag_chrom tag_pos tag_ref tag_alt postprob tag_beta is95_credset
S1 20 1000 A G 0.9 -0.5 True
S1 20 2000 C CT 0.02 0.1 False
""".replace(" ", "\t")
PLATFORM = [
    {
        "studyLocusId": "l1",
        "studyId": "S1",
        "variantId": "20_1000_A_G",
        "beta": 9.0,
        "locus": [
            {
                "variantId": "20_1000_A_G",
                "posteriorProbability": 0.9,
                "beta": -0.5,
                "is95CredibleSet": True,
            },
            {
                "variantId": "20_2000_C_CT",
                "posteriorProbability": 0.02,
                "beta": 0.1,
                "is95CredibleSet": False,
            },
        ],
    }
]
VCF = """##fileformat=VCFv4.2
##contig=<ID=20>
##INFO=<ID=PIP,Number=1,Type=Float,Description="x">
##INFO=<ID=BETA,Number=1,Type=Float,Description="x">
##INFO=<ID=CS,Number=1,Type=Integer,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
20\t1000\t.\tA\tG\t.\t.\tPIP=0.9;BETA=-0.5;CS=1
20\t2000\t.\tC\tCT\t.\t.\tPIP=0.02;BETA=0.1
"""


def write(path: Path, content: object) -> Path:
    if path.suffix == ".parquet":
        pd.DataFrame(content).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text("\n".join(map(json.dumps, content)))  # type: ignore[call-overload]
    elif path.suffix in {".gz", ".bgz"}:
        path.write_bytes(gzip.compress(str(content).encode()))
    else:
        path.write_text(str(content))
    return path


@pytest.mark.parametrize(
    ("name", "content", "trait", "options"),
    [
        pytest.param("x.SUSIE.snp.bgz", FINNGEN, "T2D", {}, id="finngen"),
        pytest.param("bmi.csv", SUSIE, "bmi", {}, id="susie-csv"),
        pytest.param("bmi.snp", FINEMAP, "bmi", {"effect_allele": "allele2"}, id="finemap"),
        pytest.param("bmi.tsv.gz", POLYFUN, "bmi", {}, id="polyfun"),
        pytest.param("genetics.tsv", GENETICS, "S1", {}, id="open-targets-genetics"),
        pytest.param("part.parquet", PLATFORM, "S1", {}, id="open-targets-parquet"),
        pytest.param("part.json", PLATFORM, "S1", {}, id="open-targets-json"),
        pytest.param("bmi.vcf", VCF, "bmi", {}, id="vcf"),
    ],
)
def test_formats(
    tmp_path: Path, name: str, content: object, trait: str, options: dict[str, str]
) -> None:
    min_pip = 0.5 if name == "bmi.snp" else 0.01  # which FINEMAP's file does not say
    found = read_credible_sets(write(tmp_path / name, content), min_pip=min_pip, **options)
    assert tuple(found) == COLUMNS
    assert found["trait"].tolist() == [trait] * 2
    assert found["chrom"].str.removeprefix("chr").tolist() == ["20"] * 2
    assert found["pos"].tolist() == [1000, 2000]
    assert found["other"].tolist() == ["A", "C"]
    assert found["effect"].tolist() == ["G", "CT"]
    np.testing.assert_allclose(found["pip"], [0.9, 0.02], rtol=1e-6)
    assert np.sign(found["beta"]).tolist() == [-1, 1]
    assert found["is_credible"].tolist() == [True, False]
    if "maf" in str(content):
        np.testing.assert_allclose(found["maf"], [0.2, 0.3])


def test_the_other_allele_of_finemap(tmp_path: Path) -> None:
    path = write(tmp_path / "bmi.snp", FINEMAP)
    found = read_credible_sets(path, effect_allele="allele1")
    assert found["effect"].tolist() == ["A", "C"]
    with pytest.raises(CredibleSetError, match=r"which of allele1 and allele2.*--effect-allele"):
        read_credible_sets(path)


def test_a_vcf_of_several_traits(tmp_path: Path) -> None:
    text = VCF.split("##INFO")[0]
    for name, kind in {
        "TRAITS": "String",
        "PP": "Float",
        "BETA": "Float",
        "REGION": "Integer",
    }.items():
        text += f'##INFO=<ID={name},Number=.,Type={kind},Description="x">\n'
    text += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    record = "20\t1000\t.\tA\t{}\t.\t.\tTRAITS=MCV,MCH;PP=0.5,0.001;BETA=-1,{};REGION=7,8\n"
    found = read_credible_sets(write(tmp_path / "v.vcf", text + record.format("G", 2)))
    assert found["trait"].tolist() == ["MCV", "MCH"]
    assert found["locus"].tolist() == ["7", "8"]
    assert found["beta"].tolist() == [-1, 2]
    assert found["is_credible"].tolist() == [True, False]
    for alt, beta, words in (("G,C", 2, "split it first"), ("G", "2,3", "3 of BETA")):
        with pytest.raises(CredibleSetError, match=words):
            read_credible_sets(write(tmp_path / "v.vcf", text + record.format(alt, beta)))


def test_loci_without_names(tmp_path: Path) -> None:
    text = "chrom\tpos\tref\talt\tpip\n"
    text += "".join(
        f"{c}\t{p}\tA\tC\t0.5\n" for c, p in [(1, 900_000), (1, 100), (2, 5), (1, 400_100)]
    )
    found = read_credible_sets(write(tmp_path / "x.tsv", text))
    assert found["locus"].tolist() == ["1:100", "1:100", "2:5", "1:100"]
    text += "1\t2000000\tA\tC\t0.5\n"
    assert read_credible_sets(write(tmp_path / "x.tsv", text))["locus"].tolist()[-1] == "1:2000000"
    assert found["beta"].isna().all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "chrom\tpos\tref\talt\n1\t5\tA\tC\n", "no column for pip; it has", id="no-pip"
        ),
        pytest.param("a\tb\n1\t2\n", "no column for chrom, pos, other, effect, pip", id="nothing"),
        pytest.param("chrom\tpos\tref\talt\tpip\n1\t5\tA\tC\t1.2\n", "row 1.*PIP 1.2", id="pip"),
        pytest.param("chrom\tpos\tref\talt\tpip\n1\tx\tA\tC\t1\n", "row 1: pos 'x'", id="pos"),
        pytest.param("chrom\tpos\tref\talt\tpip\n1\t0\tA\tC\t1\n", "start at 1", id="zero"),
        pytest.param("", "can't be read as credible sets", id="empty"),
        pytest.param(VCF.replace("PIP", "XX"), "no PIP or PP in its INFO", id="vcf"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CredibleSetError, match=words):
        read_credible_sets(write(tmp_path / "x.tsv", text))
    with pytest.raises(CredibleSetError, match="No such file"):
        read_credible_sets(tmp_path / "nothing.tsv")
