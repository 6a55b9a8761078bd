# Stores are no outputs: Snakemake deletes the outputs of a job that was killed or runs again, and a
# store goes on where it stopped. A file beside it says that it is done.


rule normalize:
    input:
        variants=config["variants"],
        credible_sets=config["credible_sets"],
        genome=config["genome"],
    output:
        f"{RESULTS}/variants.vcf.gz",
    params:
        credible_sets=[f"--credible-sets {path}" for path in config["credible_sets"]],
    log:
        f"{RESULTS}/logs/normalize.log",
    shell:
        "scbasset-ism normalize {input.variants} {params.credible_sets} --genome {input.genome}"
        " -o {output} 2> {log}"


rule score_part:
    input:
        variants=rules.normalize.output,
        genome=config["genome"],
    output:
        touch(f"{RESULTS}/parts/{{part}}.done"),
    params:
        model=config["model"],
        store=f"{STORES}/scores.zarr",
        n_parts=config["parts"],
        more=config["score_options"],
    threads: 2
    resources:
        gpu=0,
    log:
        f"{RESULTS}/logs/score_{{part}}.log",
    shell:
        "scbasset-ism score {input.variants} --genome {input.genome} --model {params.model}"
        " --layout factored --threads {threads} {params.more}"
        " -o {params.store} --part {wildcards.part}/{params.n_parts} 2> {log}"


rule finalize:
    input:
        expand(f"{RESULTS}/parts/{{part}}.done", part=PARTS),
    output:
        touch(f"{RESULTS}/scores.done"),
    params:
        store=f"{STORES}/scores.zarr",
    log:
        f"{RESULTS}/logs/finalize.log",
    shell:
        "scbasset-ism finalize {params.store} 2> {log}"


rule background:
    input:
        variants=config["background"] or [],
        genome=config["genome"],
    output:
        touch(f"{RESULTS}/background.done"),
    params:
        model=config["model"],
        store=f"{STORES}/background.zarr",
    threads: 2
    resources:
        gpu=0,
    log:
        f"{RESULTS}/logs/background.log",
    shell:
        "scbasset-ism calibrate {input.variants} --genome {input.genome} --model {params.model}"
        " --threads {threads} -o {params.store} 2> {log}"
