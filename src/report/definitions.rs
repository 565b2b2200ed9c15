//! Definitions of the figures, printed at the foot of every report.

use crate::language::{Text, text};

/// Name and definition of every figure.
pub const DEFINITIONS: [(Text, Text); 16] = [
    (
        text!("Accuracy"),
        text!(
            "correct ÷ (scored + unscorable). An answer that cannot be read counts as wrong. A failed item has no answer \
         at all and is counted apart. It makes the run invalid, unless the suite allows a share of them. Micro: all items pooled. Macro: mean over subjects."
        ),
    ),
    (text!("95 % interval of an accuracy"), text!("Wilson's score interval, without continuity correction.")),
    (
        text!("Prefill time"),
        text!(
            "sum of the prefill steps of the batch. It includes the choice of the first token, not tokenization. Its tokens are \
         all prompt tokens of the batch."
        ),
    ),
    (text!("TTFT"), text!("end of prefill − start of the request.")),
    (
        text!("Decode time"),
        text!(
            "from the first token to the last; its tokens are those after the first. TPOT (ms/token) = decode time ÷ \
         (output tokens − 1), undefined for one token."
        ),
    ),
    (text!("ITL"), text!("each gap between two tokens from the second on.")),
    (
        text!("E2E"),
        text!("from the start of the request to the last token; its tokens are all output tokens."),
    ),
    (
        text!("tokens/s"),
        text!(
            "tokens of the whole batch over all repetitions ÷ their total time; of several cases likewise, never a mean of rates. A \
         ratio of rates is one of such rates. tokens_per_s_median in perf.csv is tokens ÷ median time. Real prompts differ, \
         so theirs is the median of the repetitions' rates. Charts with an interval show tokens_per_s_median."
        ),
    ),
    (
        text!("Median, MAD, interval"),
        text!(
            "over the timed repetitions; MAD is not scaled; the median's 95 % interval is a percentile bootstrap of 10,000 \
         resamples with a fixed seed."
        ),
    ),
    (text!("Quantiles"), text!("Hyndman and Fan's type 7 on raw samples; p99 from 100 samples on.")),
    (
        text!("Roofline %"),
        text!(
            "the least time that the machine's bandwidth and arithmetic peak allow ÷ the median time. Both are measured around the \
         case's repetitions if a target names the case, else before all cases. An emulated card has those of its profile, times \
         the ranks. GB/s: bytes that must cross the memory bus ÷ the median time."
        ),
    ),
    (
        text!("Against the machine's limits"),
        text!(
            "bandwidth and peak are measured right before and after each repetition, and a repetition's rate is held against the \
         mean of the two. Reached, limit and ratio are each the median over the repetitions: the ratio is the median of \
         ratios. Met: yes if in every repetition, against the limit before it as against that after it, NO if in none, left \
         open if in some. A run without such measurements has its median held against the limits before its cases. A case is \
         compared with a case by their rates over total time."
        ),
    ),
    (
        text!("Peak memory"),
        text!(
            "the most that the process had resident during the case. On a card, emulated or not: the most in use on one of its \
         chips during a repetition. The chip's own count and this program's allocations say it. It includes what the engine \
         holds for the whole plan. Of the case alone: by estimate, up to 5 % above what the allocator counts."
        ),
    ),
    (text!("Outliers"), text!("flagged by Tukey's fences and the modified z-score (3.5), never dropped.")),
    (
        text!("Measured, modelled"),
        text!(
            "measured: a wall or device clock on hardware that was there. Modelled: a virtual clock kept from a chip \
         profile. It counts operators, launches, copies and collectives. It does not count the host's own work between two \
         steps, such as choosing tokens. Neither is ever converted into the other."
        ),
    ),
    (
        text!("Error of modelled times"),
        text!(
            "± root mean square, over models, of the logarithm of modelled ÷ published time. The published speeds are those of the \
         same chip, phase and number of chips. Each model was left out of the fit that its row is held against, or never in one. \
         So x ± e lies between x ÷ exp(e) and x × exp(e). With fewer \
         than 3 rows, or rows of one model, those of all numbers of chips. An asterisk: extrapolated, and the error can be larger. \
         The number of chips, batch, length, model size, launch mode or type of the weights is then outside these speeds. A model size is \
         outside under half or over twice the published ones. Under load the error is that of the steps; waiting near saturation multiplies it. \
         A profile that was fitted to a card states the error of that fit, each shape left out in turn. model_error.csv has every \
         error. Of a ratio of two modelled times: the root of the sum of both errors' squares."
        ),
    ),
];
