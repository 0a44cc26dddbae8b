"""The store of finished runs stays within its budget and forgets what was used longest ago."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from interpwidgets.engine.cache import Cache


def get(cache, key):
    return cache.find(lambda k, _: k == key)


def test_least_recently_used_goes_first():
    cache = Cache(30)
    for key in "abc":
        cache.put(key, key.upper(), 10)
    assert get(cache, "a") == "A"
    cache.put("d", "D", 10)
    assert get(cache, "b") is None
    assert [get(cache, key) for key in "acd"] == ["A", "C", "D"]
    assert cache.held == 30


def test_most_recently_used_entry_that_suits_is_found():
    cache = Cache(100)
    cache.put("small", 1, 10)
    cache.put("large", 2, 10)
    assert cache.find(lambda key, value: value < 3) == 2
    get(cache, "small")
    assert cache.find(lambda key, value: value < 3) == 1


def test_one_large_entry_pushes_out_as_many_as_it_needs():
    cache = Cache(30)
    for key in "abc":
        cache.put(key, key, 10)
    cache.put("d", "d", 20)
    assert [get(cache, key) for key in "abcd"] == [None, None, "c", "d"]


def test_an_entry_larger_than_the_budget_is_not_kept_and_costs_nothing():
    cache = Cache(30)
    cache.put("a", "a", 30)
    cache.put("b", "b", 31)
    assert get(cache, "b") is None
    assert get(cache, "a") == "a"


def test_putting_a_key_again_replaces_it():
    cache = Cache(30)
    cache.put("a", "old", 20)
    cache.put("a", "new", 15)
    assert get(cache, "a") == "new"
    assert cache.held == 15


def test_clear_forgets_all():
    cache = Cache(30)
    cache.put("a", "a", 10)
    cache.clear()
    assert get(cache, "a") is None
    assert cache.held == 0


def test_threads_never_push_it_over_its_budget():
    cache = Cache(50)

    def work(worker):
        for i in range(200):
            cache.put((worker, i), i, 7)
            assert cache.held <= 50
            cache.find(lambda key, value, i=i: value == i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert cache.held == 49
