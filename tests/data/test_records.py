import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import reprism
from reprism.data import LOADERS, DataError, ReIDDataset, Sample, Tracklet, open_dataset


def dataset(*train_pids):
    train = tuple(Sample(Path(f"{i}.jpg"), pid, 1) for i, pid in enumerate(train_pids))
    query = tuple(Sample(Path(f"q{i}.jpg"), pid, 1) for i, pid in enumerate((7, 7, 9)))
    return ReIDDataset("some", Path("root"), train, query, query)


def test_train_labels_are_0_to_n_in_sorted_order_of_identities():
    data = dataset(30, 4, 4, 200, 30)
    assert data.train_labels == {4: 0, 30: 1, 200: 2}
    assert data.train_targets == (1, 0, 0, 2, 1)
    assert data.num_train_identities == 3
    assert data.num_query_identities == 2


def test_string_identities_sort_as_strings_and_after_integers():
    assert dataset("b", "a", "10", "9").train_labels == {"10": 0, "9": 1, "a": 2, "b": 3}
    assert dataset("a", 3).train_labels == {3: 0, "a": 1}


def test_labels_do_not_depend_on_the_order_of_the_files():
    assert dataset(5, 1, 3).train_labels == dataset(3, 5, 1).train_labels


def test_records_cannot_be_changed_and_survive_pickling():
    data = dataset(1, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train[0].pid = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train = ()
    assert data.train_labels  # Cached, and pickled with it.
    assert pickle.loads(pickle.dumps(data)) == data


def test_unknown_data_set_names_the_known_ones_and_the_nearest():
    with pytest.raises(ValueError, match=r"'Market1501'.*Did you mean 'market1501'\?.*Known: .*market1501"):
        open_dataset("Market1501", "anywhere")
    with pytest.raises(ValueError, match=r"Unknown data set 'zzz'\. Known: "):
        open_dataset("zzz", "anywhere")


def test_unknown_option_is_refused_by_name():
    with pytest.raises(ValueError, match="'market1501' has no option split"):
        open_dataset("market1501", "anywhere", split=3)


def test_options_reach_the_loader(monkeypatch):
    seen = []

    def load(root, *, labelled=True):
        seen.append((root, labelled))
        return dataset(1)

    monkeypatch.setitem(LOADERS, "fake", load)
    assert open_dataset("fake", "there", labelled=False) == dataset(1)
    assert seen == [("there", False)]


def test_a_data_error_is_a_value_error():
    assert issubclass(DataError, ValueError)


def test_a_data_set_prints_its_counts_and_no_samples():
    data = dataset(*range(2000), 5)
    assert repr(data) == (
        "ReIDDataset('some', 'root': 2,001 train images of 1,999 identities, 3 query images of 2 identities, "
        "3 gallery images of 2 identities)"
    )
    walk = Tracklet(Path("walks/0001"), tuple(f"F{i:03}.jpg" for i in range(900)), 1, "gate")
    assert repr(walk) == "Tracklet('walks/0001', 900 frames, pid=1, camid='gate')"
    assert "1 query tracklets of 1 identities" in repr(ReIDDataset("walks", Path("root"), (walk,), (walk,), (walk,)))


def test_the_names_are_public():
    assert reprism.open_dataset is open_dataset
    assert reprism.Sample is Sample
    assert reprism.ReIDDataset is ReIDDataset


def test_opening_a_data_set_does_not_need_torch():
    code = "import sys, reprism.data; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
