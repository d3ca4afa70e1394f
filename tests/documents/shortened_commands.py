"""Commands of the documents that take minutes or days as they stand, and flags that make them short."""

SWEEP = "python -m domainbed.scripts.sweep launch"
TRAIN = "python -m domainbed.scripts.train"
STUDY = "python -m domainbed_gs.scripts.similarity"
ALIGNMENT = "python -m domainbed_gs.scripts.alignment"
FISHR = (
    "--dataset EmojiStyles --algorithm Fishr --test_envs 2 --steps 161 "
    """--hparams '{"batch_size": 32, "lr": 0.001, "penalty_anneal_iters": 48}' """
    "--output_dir runs/alignment/Fishr"
)
NO_WEIGHTS = '{"pretrained": false}'
SMALL = "--skip_confirmation --n_trials 1 --steps 1"
PAPER = f"{SMALL} --datasets PACS --algorithms ERM --test_envs 0"
CONTROL = f"{SMALL} --algorithms AgrSum --test_envs 0 --grouping domain pooled"
PILOT = "--config sweeps/quickstart.toml --n_trials 4 --output_dir runs/pilot --skip_confirmation --quiet"
QUICK = """--steps 1 --hparams '{"pretrained": false, "batch_size": 2}'"""
SEARCH = "--skip_confirmation --n_trials 2 --n_hparams 2 --steps 1"
SINGLE_SOURCE = (
    "--datasets EmojiStyles --algorithms ERM --n_hparams 1 --target_sets single_source "
    "--output_dir runs/single_source"
)
COLORED = f"{SMALL} --algorithms ERM Fishr"
SIMILARITY = (
    "--dataset EmojiStyles --test_envs 3 --splits 70/10/20 --steps 161 "
    """--hparams '{"batch_size": 32, "lr": 0.001}' --output_dir runs/similarity_3"""
)
PACS_SIMILARITY = (
    "--dataset PACS --data_dir DATA --test_envs sketch --splits 70/10/20 --steps 101 "
    """--hparams '{"featurizer": "efficientnet_lite0", "input_size": 96, "batch_size": 16, """
    """"freeze_bn": true, "data_augmentation": false, "freeze": "blocks.5", "lr": 3e-4}' """
    "--output_dir runs/pacs_similarity/last_3"
)
FLAT = (
    "--datasets EmojiStyles --algorithms ERM SAM DGSAM --n_trials 10 --n_hparams 1 --single_test_envs "
    "--test_envs 2 --steps 300 --output_dir runs/sharpness"
)
SHARPNESS = "python -m domainbed_gs.scripts.sharpness --sweep runs/sharpness"

SHORTENED = {
    f"{SWEEP} --algorithms AgrSum": f"{SMALL} --n_hparams 1 --single_test_envs",
    f"{SWEEP} --config sweeps/iccv2021_table1.toml --data_dir DATA": PAPER,
    f"{SWEEP} --config sweeps/colored_digits.toml": COLORED,
    f"{SWEEP} --config sweeps/colored_digits.toml --preset grey": SMALL,
    f"{SWEEP} --config sweeps/colored_digits.toml --preset single": COLORED,
    f"{SWEEP} --config sweeps/colored_mnist_irm.toml --data_dir DATA": COLORED,
    f"{SWEEP} --config sweeps/colored_mnist.toml --data_dir DATA": f"{SEARCH} --algorithms ERM SANDMask",
    f"{SWEEP} --config sweeps/iccv2021_control.toml --preset emoji_styles": CONTROL,
    f"{SWEEP} --config sweeps/quickstart.toml --skip_confirmation --quiet": SMALL,
    f"{SWEEP} {SINGLE_SOURCE}": SMALL,
    f"{SWEEP} {FLAT}": f"{SMALL} --algorithms ERM DGSAM",
    SHARPNESS: "--samples 4 --ascent_steps 1 --lanczos_steps 2 --probes 2 --directions 1 --points 3",
    f"{SWEEP} {PILOT}": "--n_trials 2 --steps 1 --algorithms ERM AgrSum --test_envs 0",
    f"{STUDY} --dataset EmojiStyles --test_envs 2 --output_dir runs/similarity": "--steps 2 --samples 2",
    f"{STUDY} {SIMILARITY}": "--steps 2 --samples 2",
    f"{STUDY} {PACS_SIMILARITY}": "--steps 2 --samples 2 --output_dir runs/pacs_similarity/short",
    f"{ALIGNMENT} {FISHR}": "--steps 2 --samples 4 --probes 2",
    f"{ALIGNMENT} --model runs/alignment/Fishr": "--samples 4 --probes 2",
    f"{TRAIN} --dataset EmojiStyles --algorithm AgrSum --test_envs 2": "--steps 2",
    f"{TRAIN} --dataset path/to/root --test_envs 0 --hparams '{NO_WEIGHTS}' --output_dir mine": QUICK,
}
