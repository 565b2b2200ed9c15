//! Time budgets: the cases that take too long on this machine.

use glmbench_device::Precision;

use glmbench_engine::config::ModelConfig;

use crate::bench::CaseCost;
use crate::record::Roofline;

use super::duration::Peaks;
use super::plan::Plan;
use crate::workload::shapes::plan::cost;

impl Plan<'_> {
    /// Excludes the shapes that exceed the suite's time budget even at the machine's roofline. [Check the
    /// memory](Plan::fit_memory) again afterwards.
    pub fn fit_budget(&mut self, config: &ModelConfig, precision: Precision, roofline: &Roofline) {
        let step_tokens = self.step_tokens();
        for run in self.performance.iter_mut().filter(|run| run.unfit.is_none()) {
            let Some(budget_s) = run.budget_s else { continue };
            let CaseCost { prefill, decode } = cost(run, config, precision, step_tokens);
            let peaks = Peaks::of(roofline);
            let times = run.timed() + run.warm_up.most.min(1);
            let least_s = times as f64 * (peaks.least_s(prefill) + peaks.least_s(decode));
            if least_s > budget_s as f64 {
                run.unfit = Some(format!(
                    "over budget: {least_s:.0} s at least on this machine, the suite gives it {budget_s} s; --over-budget \
                     runs it"
                ));
            }
        }
        if self.shard().is_some() {
            return;
        }
        self.capacities = self.tp_sizes().into_iter().map(|tp| (tp, self.largest(config, tp))).collect();
    }
}
