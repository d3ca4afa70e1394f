from domainbed.lib import accuracy, misc, pairing, printing, seeds, splitting, tee

HOMES = {
    accuracy: ["accuracy"],
    pairing: ["random_pairs_of_minibatches", "split_meta_train_test"],
    printing: ["print_row", "print_separator"],
    seeds: ["seed_hash"],
    splitting: ["_SplitDataset", "make_weights_for_balanced_classes", "split_dataset"],
    tee: ["Tee"],
}


def test_upstreams_names_are_the_things_from_their_homes():
    for home, names in HOMES.items():
        for name in names:
            assert getattr(misc, name) is getattr(home, name)
    assert set(misc.__all__) == {"pdb", *(name for names in HOMES.values() for name in names)}
