from domainbed.lib import (
    accuracy,
    densities,
    lars,
    misc,
    moving_average,
    pairing,
    printing,
    projection,
    seeds,
    splitting,
    supervised_contrastive,
    tee,
    tensor_dicts,
    weight_average,
)

HOMES = {
    accuracy: ["accuracy"],
    densities: [
        *("EPS", "Distribution1D", "GaussianKernel", "Kernel", "KernelDensityEstimator", "Nonparametric"),
        *("Normal", "continuous_bisect_fun_left", "estimate_bandwidth"),
    ],
    lars: ["LARS"],
    moving_average: ["MovingAverage"],
    pairing: ["random_pairs_of_minibatches", "split_meta_train_test"],
    printing: ["print_row", "print_separator"],
    projection: ["distance", "proj"],
    seeds: ["seed_hash"],
    splitting: ["_SplitDataset", "make_weights_for_balanced_classes", "split_dataset"],
    supervised_contrastive: ["SupConLossLambda"],
    tee: ["Tee"],
    tensor_dicts: ["ParamDict", "l2_between_dicts"],
    weight_average: ["ErmPlusPlusMovingAvg"],
}


def test_upstreams_names_are_the_things_from_their_homes():
    for home, names in HOMES.items():
        for name in names:
            assert getattr(misc, name) is getattr(home, name)
    assert set(misc.__all__) == {"pdb", *(name for names in HOMES.values() for name in names)}
