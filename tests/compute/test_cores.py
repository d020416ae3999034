"""Work shared by threads of one core each leaves everyone else's number of threads alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fuscore_metric.compute.cores import on_all_cores


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_each_thread_has_one_core_and_all_others_keep_theirs(three_threads):
    found = on_all_cores(lambda items: [(n, torch.get_num_threads()) for n in items], range(50))
    numbers, cores = zip(*(one for part in found for one in part), strict=True)
    assert sorted(numbers) == list(range(50))
    assert set(cores) == ({1} if len(found) > 1 else {3})
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


def test_errors_reach_the_caller(three_threads):
    def fail(items):
        raise RuntimeError(f"no memory for {next(items)}")

    with pytest.raises(RuntimeError, match="no memory"):
        on_all_cores(fail, range(5))
