//! A scripted server of known faults and delays, for tests only.
