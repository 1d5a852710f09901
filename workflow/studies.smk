# Studies whose runs no notebook makes: of devices on the film, and from the phantom to real radiographs.

STRENGTHS = ["0", "0.5", "0.9", "1"]


rule shortcuts_run:
    output:
        "runs/study/shortcuts/{strength}-{seed}/metrics.json",
    params:
        folder=lambda wildcards: f"runs/study/shortcuts/{wildcards.strength}-{wildcards.seed}",
    shell:
        "rmdir {params.folder} && python -m cxrlib.phantom.shortcuts run --run-dir {params.folder}"
        " --strength {wildcards.strength} --seed {wildcards.seed}"


rule shortcuts:
    input:
        expand("runs/study/shortcuts/{strength}-{seed}/metrics.json", strength=STRENGTHS, seed=range(3)),
    output:
        "results/shortcuts.csv",
        "results/shortcuts_maps.csv",
    shell:
        "python -m cxrlib.phantom.shortcuts collect runs/study/shortcuts {output}"


# With the real images at hand: snakemake --cores 2 sim_to_real --config data_dir=<folder>
rule sim_to_real_run:
    output:
        "runs/study/sim_to_real/{images}-{seed}/metrics.json",
    params:
        folder=lambda wildcards: f"runs/study/sim_to_real/{wildcards.images}-{wildcards.seed}",
        data_dir=config.get("data_dir"),
    shell:
        "rmdir {params.folder} && python -m cxrlib.phantom.tuning run --run-dir {params.folder}"
        " --phantom {wildcards.images} --seed {wildcards.seed} --data-dir {params.data_dir}"


rule sim_to_real:
    input:
        expand(
            "runs/study/sim_to_real/{images}-{seed}/metrics.json",
            images=[0, 1000, 4000, 8000],
            seed=range(3),
        ),
    output:
        "results/sim_to_real.csv",
    params:
        data_dir=config.get("data_dir"),
    shell:
        "python -m cxrlib.phantom.tuning collect runs/study/sim_to_real {output} --data-dir {params.data_dir}"
