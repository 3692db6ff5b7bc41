import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from reprism.data.sampling import Draw, IdentityBatchSampler

# Identities as a list of image counts; arbitrary label values, images of an identity scattered.
counts_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=30)
cases = st.tuples(
    counts_strategy, st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**40), st.integers(0, 600)
).filter(lambda case: len(case[0]) >= case[1])


def scattered(counts, shuffler=0):
    labels = [7 * identity - 50 for identity, count in enumerate(counts) for _ in range(count)]
    random.Random(shuffler).shuffle(labels)
    return labels


def epoch_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def global_states():
    # The old global state of numpy is what is asked about, hence no Generator.
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@given(cases)
def test_an_epoch_by_its_definition(case):
    counts, p, k, seed, epoch = case
    labels = scattered(counts)
    sampler = IdentityBatchSampler(labels, p, k, seed=seed)
    batches = epoch_of(sampler, epoch)

    assert len(batches) == len(sampler) == len(counts) // p
    shown_in_epoch = []
    for batch in batches:
        assert len(batch) == p * k
        for start in range(0, p * k, k):
            group = batch[start : start + k]
            identities = {labels[draw.index] for draw in group}
            assert len(identities) == 1
            identity = identities.pop()
            shown_in_epoch.append(identity)
            times = Counter(draw.index for draw in group)
            available = labels.count(identity)
            if available >= k:
                assert set(times.values()) == {1}
            else:
                assert len(times) == available  # Every image, none of them favoured by more than one.
                assert max(times.values()) - min(times.values()) <= 1
    assert len(shown_in_epoch) == len(set(shown_in_epoch)) == p * len(batches)


@given(cases, st.integers(1, 4))
def test_processes_share_out_each_step_of_one_and_the_same_epoch(case, world):
    counts, p, k, seed, epoch = case
    counts = counts * world  # Enough identities for one step of all.
    labels = scattered(counts)
    ranks = [
        epoch_of(IdentityBatchSampler(labels, p, k, seed=seed, rank=rank, world_size=world), epoch)
        for rank in range(world)
    ]
    together = epoch_of(IdentityBatchSampler(labels, p * world, k, seed=seed), epoch)
    assert {len(batches) for batches in ranks} == {len(counts) // (p * world)}
    for step, whole in enumerate(together):
        parts = [batches[step] for batches in ranks]
        assert [draw for part in parts for draw in part] == whole
        people = [{labels[draw.index] for draw in part} for part in parts]
        assert len(set.union(*people)) == sum(map(len, people)) == p * world


@given(cases, st.data())
def test_starting_late_gives_the_rest_of_the_same_epoch_once(case, data):
    counts, p, k, seed, epoch = case
    labels = scattered(counts)
    whole = epoch_of(IdentityBatchSampler(labels, p, k, seed=seed), epoch)
    sampler = IdentityBatchSampler(labels, p, k, seed=seed)
    start = data.draw(st.integers(0, len(whole)))
    sampler.start_batch = start
    assert len(sampler) == len(whole)
    assert epoch_of(sampler, epoch) == whole[start:]
    assert sampler.start_batch == 0
    assert epoch_of(sampler, epoch) == whole


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(0, 1000))
def test_neither_reads_nor_moves_global_random_state(seed, epoch):
    labels = scattered([3] * 12)
    before = epoch_of(IdentityBatchSampler(labels, 3, 2, seed=seed), epoch)
    random.seed(seed + 1)
    np.random.seed(epoch)  # noqa: NPY002  (the global state is what the test is about)
    torch.manual_seed(epoch)
    before_states = global_states()
    assert epoch_of(IdentityBatchSampler(labels, 3, 2, seed=seed), epoch) == before
    assert global_states() == before_states


def test_seeds_and_epochs_differ():
    labels = scattered([5] * 40)
    runs = [
        [tuple(draw) for batch in epoch_of(IdentityBatchSampler(labels, seed=seed), epoch) for draw in batch]
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    for first in range(4):
        for second in range(first):
            assert runs[first] != runs[second]
            # Augmentation too: hardly a seed in common.
            assert len({seed for _, seed in runs[first]} & {seed for _, seed in runs[second]}) < 5


def test_market_1501_has_93_batches_of_32_images():
    # 12,936 images of 751 identities, as published; 751 * 4 / 32 = 93.9.
    sampler = IdentityBatchSampler([image % 751 for image in range(12_936)], 8, 4)
    batches = list(sampler)
    assert len(sampler) == len(batches) == 93
    assert {len(batch) for batch in batches} == {32}


def test_every_identity_and_image_has_its_turn():
    # 10 identities of 6 images, 3 × 2: one identity is dropped each epoch, four images of each are not shown.
    labels = scattered([6] * 10)
    sampler = IdentityBatchSampler(labels, 3, 2)
    epochs = 2000
    images = Counter(draw.index for epoch in range(epochs) for batch in epoch_of(sampler, epoch) for draw in batch)
    expected = epochs * 9 * 2 / 60
    assert len(images) == 60
    # Binomial spread: standard deviation about 20; 6 of them.
    assert max(abs(count - expected) for count in images.values()) < 130


def test_order_of_identities_is_shuffled_and_pairs_vary():
    labels = [identity for identity in range(16) for _ in range(4)]
    sampler = IdentityBatchSampler(labels, 4, 4)
    company = Counter()
    for epoch in range(300):
        for batch in epoch_of(sampler, epoch):
            people = sorted({labels[draw.index] for draw in batch})
            company.update((a, b) for a in people for b in people if a < b)
    # 120 pairs, each together with probability 3/15: 60 times in 300 epochs, standard deviation 7.
    assert len(company) == 120
    assert min(company.values()) > 60 - 6 * 7
    assert max(company.values()) < 60 + 6 * 7


def test_draws_are_plain_integers_within_32_bits():
    for batch in IdentityBatchSampler(scattered([4] * 20)):
        for draw in batch:
            assert isinstance(draw, Draw)
            assert type(draw.index) is type(draw.seed) is int
            assert 0 <= draw.seed < 2**32


def test_torch_generator_makes_use_of_32_bits_of_a_seed_only():
    # The reason why a Draw's seed has no more.
    generator = torch.Generator()
    first = torch.rand(4, generator=generator.manual_seed(5))
    assert torch.equal(first, torch.rand(4, generator=generator.manual_seed(5 + 2**32)))


def test_labels_may_be_an_array_or_a_tensor():
    labels = scattered([4] * 20)
    expected = list(IdentityBatchSampler(labels))
    assert list(IdentityBatchSampler(np.array(labels))) == expected
    assert list(IdentityBatchSampler(torch.tensor(labels))) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids_per_batch": 11}, r"10 identities .* ids_per_batch 11 × 1 .* = 11\. Lower ids_per_batch to 10"),
        ({"ids_per_batch": 4, "world_size": 3}, r"= 12\. Lower ids_per_batch to 3 or less"),
        ({"ids_per_batch": 1, "world_size": 11}, r"Use more identities or fewer processes"),
        ({"ids_per_batch": 0}, "ids_per_batch is 0"),
        ({"images_per_id": 0}, "images_per_id is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"ids_per_batch": 2, "world_size": 2, "rank": 2}, r"rank is 2; .* 0 … 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        IdentityBatchSampler(scattered([2] * 10), **arguments)


def test_bad_epoch_and_start_are_refused():
    sampler = IdentityBatchSampler(scattered([2] * 10), 3)
    with pytest.raises(ValueError, match="epoch is -1"):
        sampler.set_epoch(-1)
    for start in (-1, 4):
        with pytest.raises(ValueError, match=f"start_batch is {start}; .* 0 … 3"):
            sampler.start_batch = start


class Echo(Dataset):
    def __getitem__(self, draw):
        return torch.tensor(draw)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_resumes_in_the_middle_and_then_goes_on_from_the_start(workers):
    sampler = IdentityBatchSampler(scattered([4] * 20), 3, 2)
    whole = [[tuple(draw) for draw in batch] for batch in sampler]
    loader = DataLoader(Echo(), batch_sampler=sampler, num_workers=workers)
    sampler.start_batch = 4
    assert len(loader) == 6

    def run():
        return [[tuple(draw) for draw in batch.tolist()] for batch in loader]

    assert run() == whole[4:]
    assert run() == whole
