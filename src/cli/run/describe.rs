//! What a run would do.

use crate::engine::memory::MemoryEstimate;
use crate::run::plan::{Plan, first_prompt_of};

use super::setup::Setup;

/// What `--dry-run` prints.
pub(super) fn describe(setup: &Setup, plan: &Plan<'_>) -> String {
    let Setup { suite, model, compute, .. } = setup;
    let of = |world: usize| {
        let rank =
            MemoryEstimate::per_rank(&model.config, compute.memory(), plan.limits(world), world).ok()?;
        Some(rank.of_ranks(world))
    };
    // Ranks hold some of the same: the largest world takes most.
    let estimate = plan.worlds().into_iter().filter_map(of).max_by_key(MemoryEstimate::total_bytes);
    let estimate =
        estimate.unwrap_or_else(|| MemoryEstimate::new(&model.config, compute.memory(), plan.limits(1)));
    let gb = |bytes: u64| format!("{:.3} GB", bytes as f64 / 1e9);
    let mut text = match &setup.name {
        Some(name) => format!("configuration {name}\n"),
        None => String::new(),
    };
    text += &format!(
        "suite     {}: {}\nmodel     {} parameters, {}, rotary table {}\nmemory    {} = weights {} + KV cache {} + working memory {}\n",
        suite.name,
        suite.about,
        model.config.parameters(),
        compute.precision(),
        compute.rope.name(),
        gb(estimate.total_bytes()),
        gb(estimate.weight_bytes),
        gb(estimate.kv_bytes),
        gb(estimate.activation_bytes),
    );
    for run in &plan.accuracy {
        let task = run.evaluation.plan();
        text += &format!(
            "precision {}: {} items, protocol {}, {} shots, batch {}\n",
            run.task,
            run.evaluation.len(),
            task.protocol.definition().name,
            task.shots,
            run.batch
        );
    }
    for run in &plan.performance {
        text += &format!("timing    {}: {} repetitions\n", run.case_id(), run.repetitions);
        if let Some(prompts) = &run.prompts {
            text += &format!("          {}\n", prompts.notes.join(", "));
        }
    }
    text += &workloads(plan);
    for run in &plan.accuracy {
        let choices: Vec<String> =
            run.evaluation.choices().iter().map(|c| format!("{} = {}", c.answer, c.id)).collect();
        let choices = if choices.is_empty() {
            "none (the answer is read from text)".into()
        } else {
            choices.join(", ")
        };
        text += &format!("\nchoice tokens of {}: {choices}\n", run.task);
        if let Some(first) = first_prompt_of(run) {
            text += &format!(
                "first prompt of {} ({}):\n{}\nids: {:?}\n",
                run.task, first.doc_id, first.text, first.token_ids
            );
        }
    }
    text
}

/// Searches and loads.
fn workloads(plan: &Plan<'_>) -> String {
    let searches = plan
        .searches
        .iter()
        .map(|search| format!("max batch {}: {} to {}\n", search.search_id(), search.low, search.high));
    let loads = plan.loads.iter().map(|load| {
        let rates = match &load.rates {
            Some(rates) => {
                let rates: Vec<String> = rates.iter().map(f64::to_string).collect();
                format!("{} requests/s", rates.join(", "))
            }
            None => "the highest sustained rate is searched".to_owned(),
        };
        format!("load      {}: {rates}; {}\n", load.load_id, load.prompts)
    });
    searches.chain(loads).collect()
}
