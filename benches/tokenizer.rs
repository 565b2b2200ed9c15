//! Speed of the tokenizer with ChatGLM2's own vocabulary: load time, and MB of text per second.
//!
//! `cargo bench --bench tokenizer`. It needs `tokenizer.model` in `../shared/tokenizer/chatglm2-6b`, or in the folder
//! named by `GLMBENCH_TOKENIZER`.
#![expect(clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use glmbench_engine::tokenizer::Tokenizer;

const ENGLISH: &str = "Persian, also known by its endonym Farsi, is one of the Western Iranian languages within the \
                       Indo-Iranian branch of the Indo-European family (1987–2024). Is it spoken in 3 countries?\n";
const CHINESE: &str = "以下是中国关于计算机网络考试的单项选择题，请选出其中的正确答案。\n下列设备属于资源子网的是____。\n\
                       A. 计算机软件\nB. 网桥\nC. 交换机\nD. 路由器\n答案：\n";
const CODE: &str =
    "def mean(values):\n    \"\"\"Mean of a list.\"\"\"\n    return sum(values) / max(1, len(values))\n\n";

/// Returns a megabyte of text from slices of the sample at varying places, with numbers between, so that a cache alone
/// cannot answer.
fn text_of(sample: &str) -> String {
    let chars: Vec<char> = sample.chars().collect();
    let mut text = String::new();
    let mut state = 1u64;
    while text.len() < 1_000_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let start = (state >> 33) as usize % chars.len();
        let length = 4 + (state >> 20) as usize % 40;
        text.extend(chars.iter().cycle().skip(start).take(length));
        text.push(' ');
        text += &(state % 1000).to_string();
    }
    text
}

fn bench(criterion: &mut Criterion) {
    let dir = std::env::var_os("GLMBENCH_TOKENIZER").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/tokenizer/chatglm2-6b"),
        PathBuf::from,
    );
    let tokenizer = match Tokenizer::from_dir(&dir) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let mut group = criterion.benchmark_group("tokenizer");
    group.sample_size(10);
    group.bench_function("load", |b| b.iter(|| Tokenizer::from_dir(black_box(&dir))));
    for (name, sample) in [("english", ENGLISH), ("chinese", CHINESE), ("code", CODE)] {
        let text = text_of(sample);
        group.throughput(Throughput::BytesDecimal(text.len() as u64));
        group.bench_function(format!("encode {name}"), |b| b.iter(|| tokenizer.encode(black_box(&text))));
    }
    // A file with text of the user, if named by GLMBENCH_TEXT=FILE.
    if let Some(text) = std::env::var_os("GLMBENCH_TEXT").and_then(|file| std::fs::read_to_string(file).ok())
    {
        group.throughput(Throughput::BytesDecimal(text.len() as u64));
        group.bench_function("encode file", |b| b.iter(|| tokenizer.encode(black_box(&text))));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
