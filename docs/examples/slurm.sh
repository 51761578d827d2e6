#!/bin/bash
# One Slurm job for each variant; run it on the login node, in the experiment's folder.
set -euo pipefail

toxtrail run prompts model finetune    # what the variants share; drop what the experiment has none of
names='import json, sys; print(*(v["variant"] for v in json.load(sys.stdin)))'
for variant in $(toxtrail variants --json | python3 -c "$names"); do
  sbatch --wait --job-name "toxtrail-$variant" --gres=gpu:1 --cpus-per-task=8 --wrap \
    "toxtrail stage generate $variant && toxtrail stage score $variant" &
done
wait
toxtrail run    # uses the finished rows and runs everything else
