#!/usr/bin/env python3
"""Reference values for src/stats, from SciPy, statsmodels and NumPy.

    python3 -m venv venv && venv/bin/pip install scipy==1.17.1 statsmodels==0.15.0 numpy==2.4.6
    venv/bin/python scripts/stats_fixtures.py > src/stats/fixtures.json
"""

import json
import sys

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

MASK = (1 << 64) - 1


def splitmix(seed, count):
    words = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def pcg64(seed):
    """NumPy's PCG64 with the state that the program gives it."""
    a, b, c, d = splitmix(seed, 4)
    bits = np.random.PCG64()
    state = {"state": (a << 64) | b, "inc": (c << 64) | d | 1}
    bits.state = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}
    return bits


def below(bits, n):
    while True:
        product = int(bits.random_raw()) * n
        if product & MASK >= (1 << 64) % n:
            return product >> 64


def rng(seed):
    bits = pcg64(seed)
    return {
        "seed": seed,
        "splitmix": splitmix(seed, 8),
        "pcg64": [int(x) for x in pcg64(seed).random_raw(8)],
        "unit": [float(x) for x in np.random.Generator(pcg64(seed)).random(8)],
        "below_65024": [below(bits, 65024) for _ in range(8)],
    }


def wilson(successes, n, confidence):
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    # statsmodels leaves rounding noise at the two ends.
    low, high = (0.0 if successes == 0 else low), (1.0 if successes == n else high)
    return {"successes": successes, "n": n, "confidence": confidence, "low": low, "high": high}


def describe(samples):
    q = {f"q{p}": float(np.quantile(samples, p / 100)) for p in (0, 10, 90, 99, 100)}
    return {
        "samples": samples,
        "median": float(np.median(samples)),
        "mad": float(stats.median_abs_deviation(samples)),
        "mean": float(np.mean(samples)),
        "stddev": float(np.std(samples, ddof=1)) if len(samples) > 1 else None,
        **q,
    }


def bootstrap(samples, seed):
    bits = pcg64(seed)
    ordered = sorted(samples)
    medians = [np.median([ordered[below(bits, len(samples))] for _ in samples]) for _ in range(10_000)]
    scipy = stats.bootstrap(
        (samples,), np.median, method="percentile", n_resamples=50_000, rng=np.random.default_rng(7)
    ).confidence_interval
    return {
        "samples": samples,
        "seed": seed,
        "low": float(np.quantile(medians, 0.025)),
        "high": float(np.quantile(medians, 0.975)),
        "scipy_low": float(scipy.low),
        "scipy_high": float(scipy.high),
    }


def drift(samples):
    line = stats.linregress(range(len(samples)), samples)
    return {"samples": samples, "slope": float(line.slope), "stderr": float(line.stderr)}


def main():
    random = np.random.default_rng(2026)
    times = [float(round(x)) for x in random.lognormal(18, 0.05, 31)]
    even = [float(round(x)) for x in random.normal(1e9, 2e7, 12)]
    json.dump(
        {
            "versions": {"numpy": np.__version__, "scipy": __import__("scipy").__version__,
                         "statsmodels": __import__("statsmodels").__version__},
            "rng": rng(20260131),
            "wilson": [wilson(*case) for case in [
                (721, 1346, 0.95), (719, 1346, 0.99), (0, 20, 0.95), (20, 20, 0.95), (1, 1, 0.9),
                (1, 3, 0.5), (2500, 3270, 0.95), (13, 52, 0.999)]],
            "describe": [describe(s) for s in [[3.0], [4.0, 1.0], [2.5, -1.0, 7.25], times, even]],
            "bootstrap": [bootstrap(times, 1), bootstrap(even, 2), bootstrap([10.0, 11.0, 15.0, 10.5, 10.2], 3)],
            "drift": [drift(times), drift(even), drift([5.0, 4.0, 4.5])],
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
