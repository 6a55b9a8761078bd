STORE = f"{STORES}/scores.zarr"
COMPARED = f"--background {STORES}/background.zarr" if config["background"] else ""


rule strongest:
    input:
        rules.finalize.output,
    output:
        report(f"{RESULTS}/strongest.tsv", caption="../report/strongest.rst", category="Variants"),
    params:
        store=STORE,
        top=config["top"],
    log:
        f"{RESULTS}/logs/strongest.log",
    shell:
        "scbasset-ism strongest {params.store} -n {params.top} -o {output} 2> {log}"


rule mutate:
    input:
        variants=rules.strongest.output,
        genome=config["genome"],
    output:
        touch(f"{RESULTS}/ism.done"),
    params:
        model=config["model"],
        store=f"{STORES}/ism.zarr",
    threads: 2
    resources:
        gpu=0,
    log:
        f"{RESULTS}/logs/mutate.log",
    shell:
        "scbasset-ism ism {input.variants} --genome {input.genome} --model {params.model} --span 100"
        " --allele both --threads {threads} -o {params.store} 2> {log}"


rule finemap:
    input:
        scores=rules.finalize.output,
        background=BACKGROUND,
        credible_sets=config["credible_sets"],
        genome=config["genome"],
    output:
        directory(f"{RESULTS}/finemap"),
    params:
        store=STORE,
        groups=config["groups"],
        compared=COMPARED,
    log:
        f"{RESULTS}/logs/finemap.log",
    shell:
        "scbasset-ism finemap {params.store} {input.credible_sets} --genome {input.genome}"
        " --by {params.groups} {params.compared} -o {output} 2> {log}"


rule export:
    input:
        scores=rules.finalize.output,
        variants=rules.normalize.output,
    output:
        f"{RESULTS}/exports/{{name}}.{{suffix}}",
    wildcard_constraints:
        suffix="tsv|tsv.gz|tsv.bgz|parquet|vcf.gz|bcf",
    params:
        store=STORE,
        groups=config["groups"],
    log:
        f"{RESULTS}/logs/export_{{name}}.{{suffix}}.log",
    shell:
        "scbasset-ism export {params.store} --by {params.groups} -o {output} 2> {log}"


rule report:
    input:
        scores=rules.finalize.output,
        mutants=rules.mutate.output,
        traits=TRAITS,
    output:
        report(f"{RESULTS}/report.html", caption="../report/report.rst", category="Variants"),
    params:
        store=STORE,
        mutants=f"{STORES}/ism.zarr",
        groups=config["groups"],
        traits=lambda wildcards, input: f"--finemap {input.traits}" if input.traits else "",
    log:
        f"{RESULTS}/logs/report.log",
    shell:
        "scbasset-ism report {params.store} --by {params.groups} --ism {params.mutants}"
        " {params.traits} -o {output} 2> {log}"
