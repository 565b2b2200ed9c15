//! Same seed, same text, at any load.

use serde_json::json;

use crate::server::Server;

#[test]
fn a_seed_fixes_the_text_whatever_runs_beside_it() {
    let server = Server::with(6, |_| {});
    let body = |seed: usize| {
        json!({"prompt": format!("数字{seed}"), "temperature": 1.3, "top_p": 0.95, "top_k": 200, "seed": seed, "max_tokens": 60,
            "ignore_eos": true, "logprobs": 1})
    };
    let choice = |seed: usize| server.ok("/v1/completions", &body(seed)).json()["choices"][0].clone();
    let alone: Vec<_> = (0..16).map(choice).collect();
    let noise = json!({"prompt": ["x", "长".repeat(300), "y"], "max_tokens": 120, "ignore_eos": true});
    std::thread::scope(|scope| {
        let noisy: Vec<_> = (0..4).map(|_| scope.spawn(|| server.ok("/v1/completions", &noise))).collect();
        let asked: Vec<_> = (0..16).map(|seed| scope.spawn(move || choice(seed))).collect();
        for (seed, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.join().unwrap(), alone[seed], "seed {seed}");
        }
        noisy.into_iter().for_each(|noise| drop(noise.join().unwrap()));
    });
    // All prompts of one request are what they are alone, too.
    let many = json!({"prompt": ["你好", "a", "北京是"], "temperature": 0, "max_tokens": 12, "logprobs": 2});
    let many = server.ok("/v1/completions", &many).json();
    for (index, prompt) in ["你好", "a", "北京是"].iter().enumerate() {
        let one = json!({"prompt": prompt, "temperature": 0, "max_tokens": 12, "logprobs": 2});
        let mut one = server.ok("/v1/completions", &one).json()["choices"][0].clone();
        one["index"] = json!(index);
        assert_eq!(many["choices"][index], one);
    }
    server.wait_for("glmbench_kv_blocks_used", 0.0);
}

#[test]
fn a_shared_prefix_changes_no_reply() {
    let (plain, sharing) = (Server::start(), Server::with(8, |settings| settings.prefix_cache = true));
    let prompt = |end: &str| format!("{}{end}", "北京是中国的首都。".repeat(30));
    let replies = |server: &Server| {
        ["你好", "a", "北京是"].map(|end| {
            let body = json!({"prompt": prompt(end), "temperature": 0, "max_tokens": 12, "logprobs": 2});
            server.ok("/v1/completions", &body).json()["choices"].clone()
        })
    };
    assert_eq!(replies(&sharing), replies(&plain));
    assert_eq!(plain.metric("vllm:prefix_cache_hits_total"), 0.0);
    assert!(sharing.metric("vllm:prefix_cache_hits_total") >= 64.0);
    sharing.wait_for("glmbench_kv_blocks_used", 0.0);
}
