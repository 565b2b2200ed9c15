#!/usr/bin/env python3
"""Reference values for src/stats, from SciPy, statsmodels and NumPy.

    python3 -m venv venv && venv/bin/pip install scipy==1.17.1 statsmodels==0.15.0 numpy==2.4.6
    venv/bin/python scripts/stats_fixtures.py > src/stats/fixtures.json
"""

import json
import sys

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_ind

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


def binomial(n, p):
    """Shares of k for chi-squared: the ends pooled until each expects 50 of 100,000 draws."""
    shares = [float(x) for x in stats.binom.pmf(range(n + 1), n, p)]
    first = 0
    while shares[0] < 5e-4:
        first += 1
        shares[1] += shares[0]
        shares.pop(0)
    while shares[-1] < 5e-4:
        shares[-2] += shares[-1]
        shares.pop()
    return {"n": n, "p": p, "first": first, "shares": shares,
            "chi_bound": float(stats.chi2.ppf(0.999, len(shares) - 1))}


def exact_mcnemar(only_a, only_b):
    p = mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    return {"only_a": only_a, "only_b": only_b, "p": float(p)}


def holm(p):
    return {"p": p, "adjusted": [float(x) for x in multipletests(p, method="holm")[1]]}


def paired_bootstrap(strata, resamples=20_000):
    """Items drawn one by one, n - 1 of each stratum's n."""
    random = np.random.default_rng(11)
    means = []
    for n, only_a, only_b in strata:
        items = np.array([-1.0] * only_a + [1.0] * only_b + [0.0] * (n - only_a - only_b))
        means.append(random.choice(items, (resamples, n - 1)).mean(axis=1))
    sizes = np.array([n for n, _, _ in strata])
    micro = np.tensordot(sizes, np.array(means), 1) / sizes.sum()
    macro = np.mean(means, axis=0)
    bounds = {"low": np.quantile(micro, 0.025), "high": np.quantile(micro, 0.975),
              "macro_low": np.quantile(macro, 0.025), "macro_high": np.quantile(macro, 0.975)}
    return {"strata": strata, **{name: float(x) for name, x in bounds.items()}}


def score_interval(n, only_a, only_b, confidence):
    """Tango's interval, the nuisance share found by maximising the likelihood, the ends by root finding."""
    z = stats.norm.ppf(0.5 + confidence / 2)

    def statistic(difference):
        least, most = max(0.0, -difference), (1 - difference) / 2

        def loss(p):
            shares = [(only_a, p), (only_b, p + difference), (n - only_a - only_b, 1 - 2 * p - difference)]
            return -sum(k * np.log(max(share, 1e-300)) for k, share in shares if k)

        if only_a + only_b < n or only_a * only_b:
            p = optimize.minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-13}).x
        else:
            p = most
        # A maximum at the edge is only neared.
        p = min([p, least, most], key=loss)
        return (only_b - only_a - n * difference) / np.sqrt(n * (2 * p + difference * (1 - difference)))

    seen, tiny = (only_b - only_a) / n, 1e-9
    low = optimize.brentq(lambda d: statistic(d) - z, -1 + tiny, seen - tiny, xtol=1e-12)
    high = 1.0
    if seen < 1:
        high = optimize.brentq(lambda d: statistic(d) + z, seen + tiny, 1 - tiny, xtol=1e-12)
    return {"n": n, "only_a": only_a, "only_b": only_b, "confidence": confidence, "low": float(low), "high": float(high)}


def ratio(a, b, seed):
    """The program's own draws, and Schuirmann's test by Welch's t on the logarithms."""
    bits = pcg64(seed)
    first, second = sorted(a), sorted(b)
    drawn = []
    for _ in range(10_000):
        below_a = np.median([first[below(bits, len(a))] for _ in a])
        drawn.append(np.median([second[below(bits, len(b))] for _ in b]) / below_a)
    bounds = {"low": 0.025, "high": 0.975, "equivalence_low": 0.05, "equivalence_high": 0.95}
    bound = float(np.log(1.03))
    return {"a": a, "b": b, "seed": seed, "ratio": float(np.median(b) / np.median(a)),
            **{name: float(np.quantile(drawn, q)) for name, q in bounds.items()},
            "ttost_p": float(ttost_ind(np.log(b), np.log(a), -bound, bound, usevar="unequal")[0])}


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
            "binomial": [binomial(*case) for case in [(7, 0.4), (1346, 0.004), (1346, 0.3), (100_000, 0.01), (40, 0.9)]],
            "mcnemar": [exact_mcnemar(*case) for case in [
                (0, 5), (0, 6), (1, 9), (13, 13), (20, 41), (0, 1), (700, 812), (40_000, 40_700)]],
            "holm": [holm([0.01, 0.04, 0.03, 0.005]), holm([0.2]), holm([0.02, 0.02, 0.9, 0.0])],
            "paired_bootstrap": [paired_bootstrap(strata) for strata in [
                [[26, 2, 1], [19, 0, 3], [55, 4, 4], [12, 1, 0]], [[3000, 150, 90]], [[11, 3, 2], [11, 0, 4]]]],
            "score_interval": [score_interval(*case) for case in [
                (50, 0, 0, 0.95), (44, 0, 1, 0.95), (44, 1, 0, 0.9), (1346, 30, 21, 0.95), (300, 12, 12, 0.9),
                (26, 2, 9, 0.95), (5, 0, 5, 0.95), (12, 7, 5, 0.95), (100_000, 3_000, 2_800, 0.95)]],
            "ratio": [ratio(*case) for case in [
                ([1.0 + x / 1000 for x in (0, 3, 5, -4, 2, 1, -2, 0.5)], [1.0 + x / 1000 for x in (1, 4, -3, 2, 0, 6)], 5),
                (times[:10], [x * 1.2 for x in times[10:20]], 6), (even[:6], [x * 1.1 for x in even[6:]], 7),
                ([x / 1e7 for x in times[:9]], [x / 1e7 for x in times[9:20]], 8)]],
        },
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    main()
