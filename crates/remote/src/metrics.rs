//! Metrics in Prometheus' or OpenMetrics' text format.
