# Tables of the studies: those that read the runs of others, and those whose runs no notebook makes.
# snakemake --snakefile workflow/Snakefile --cores 1 studies

STRENGTHS = ["0", "0.5", "0.9", "1"]
COMPARED = ["r0_sensitivity", "pylon", "attention_mining", "ham", "clarity"]


rule studies:
    input:
        "results/comparison.csv",
        "results/comparison_ranks.csv",
        "results/r0_sensitivity_sizes.csv",
        "results/r0_sharpness.csv",
        "results/shortcuts.csv",


rule comparison:
    input:
        # Each of these tables is there when all runs of its study are.
        "results/r0_sensitivity.csv",
        "results/pylon_variants.csv",
        "results/attention_mining_variants.csv",
        "results/ham_ordinal.csv",
        "results/clarity_ablation.csv",
    output:
        "results/comparison.csv",
        "results/comparison_ranks.csv",
    params:
        runs=expand("runs/study/{study}", study=COMPARED),
    shell:
        "python -m cxrlib.ranks {output} --runs {params.runs}"


rule r0_sensitivity_sizes:
    input:
        "results/r0_sensitivity.csv",
    output:
        "results/r0_sensitivity_sizes.csv",
    shell:
        "python -m cxrlib.strata runs/study/r0_sensitivity {output} --by r0 seed"


rule r0_sharpness:
    input:
        "results/r0_sensitivity.csv",
    output:
        "results/r0_sharpness.csv",
    shell:
        "python -m cxrlib.studies runs/study/r0_sensitivity {output} --by r0 seed"


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
    shell:
        "python -m cxrlib.phantom.shortcuts collect runs/study/shortcuts {output}"


# With the real images at hand: snakemake ... --config data_dir=<folder> results/sim_to_real.csv
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
