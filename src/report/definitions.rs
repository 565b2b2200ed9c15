//! Definitions of the figures, printed at the foot of every report.

/// Name and definition of every figure.
pub const DEFINITIONS: [(&str, &str); 16] = [
    (
        "Accuracy",
        "correct ÷ (scored + unscorable). An answer that cannot be read counts as wrong. A failed item (no answer at \
         all) stands outside and is counted apart; it makes the run invalid, unless the suite allows a share of them. Micro: all items pooled. Macro: mean over subjects.",
    ),
    ("95 % interval of an accuracy", "Wilson's score interval, without continuity correction."),
    (
        "Prefill time",
        "sum of the prefill steps of the batch, the choice of the first token included, tokenization excluded; its \
         tokens are all prompt tokens of the batch.",
    ),
    ("TTFT", "end of prefill − start of the request."),
    (
        "Decode time",
        "from the first token to the last; its tokens are those after the first. TPOT (ms/token) = decode time ÷ \
         (output tokens − 1), undefined for one token.",
    ),
    ("ITL", "each gap between two tokens from the second on."),
    ("E2E", "from the start of the request to the last token; its tokens are all output tokens."),
    (
        "tokens/s",
        "tokens of the whole batch over all repetitions ÷ their total time; of several cases likewise, never a mean of rates. A \
         ratio of rates is one of such rates. tokens_per_s_median in perf.csv is the middle repetition's: tokens ÷ median time; \
         with real prompts, which differ, the median of the repetitions' rates. Charts with an interval show that one.",
    ),
    (
        "Median, MAD, interval",
        "over the timed repetitions; MAD is not scaled; the median's 95 % interval is a percentile bootstrap of 10,000 \
         resamples with a fixed seed.",
    ),
    ("Quantiles", "Hyndman and Fan's type 7 on raw samples; p99 from 100 samples on."),
    (
        "Roofline %",
        "the least time that the machine's measured bandwidth and arithmetic peak allow ÷ the median time: as measured around \
         the case's repetitions where a target speaks of it, else before the cases; of an emulated card those of its profile, \
         times the ranks. GB/s: bytes that must cross the memory bus ÷ the median time.",
    ),
    (
        "Against the machine's limits",
        "bandwidth and peak are measured right before and after each repetition, and a repetition's rate is held against the \
         mean of the two. Reached, limit and ratio are each the median over the repetitions: the ratio is the median of \
         ratios. Met: yes if in every repetition, against the limit before it as against that after it, NO if in none, left \
         open if in some. A run without such measurements is held against those before its cases, by its median; a case \
         against a case by their rates over total time.",
    ),
    (
        "Peak memory",
        "the most that the process had resident during the case. On a card, emulated or not: the most in use on one of its \
         chips during a repetition, by the chip's own count and this program's allocations; what the engine holds for the whole plan \
         is in it. Of the case alone: by estimate, up to 5 % above what the allocator counts.",
    ),
    ("Outliers", "flagged by Tukey's fences and the modified z-score (3.5), never dropped."),
    (
        "Measured, modelled",
        "measured: a wall or device clock on hardware that was there. Modelled: a virtual clock kept from a chip \
         profile, which counts operators, launches, copies and collectives; not the host's own work between two steps, \
         such as choosing tokens. Neither is ever converted into the other.",
    ),
    (
        "Error of modelled times",
        "± root mean square, over models, of the logarithm of modelled ÷ published time, of the published speeds of the same chip, \
         phase and number of chips; each model was left out of the fit that its row is held against, or never in one. So x ± e lies \
         between x ÷ exp(e) and x × exp(e). With fewer \
         than 3 rows, or rows of one model, those of all numbers of chips. An asterisk: extrapolated, since the number of chips, batch, length, \
         model size (under half or over twice the published ones), launch mode or type of the weights is outside these speeds, and the error can be \
         larger. Under load it is that of the steps; waiting near saturation multiplies it. A profile that was fitted to a card \
         states the error of that fit, each shape left out in turn. model_error.csv has every error. Of a ratio of two modelled times: the root of the sum of both errors' squares.",
    ),
];
