//! The name of a linear layer of the forward pass: its transformer layer and its role.
//!
//! The configuration of quantised models names layers so, and so do the weights. The tensors of a layer and their shapes
//! are in `weights::layout`, which re-exports [`LinearId`].

use std::cmp::Ordering;

use glmbench_device::Role;

/// A linear layer of the forward pass. The order is that of the forward pass within a layer; the output layer comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearId {
    /// The transformer layer; `None` for the output layer.
    pub layer: Option<usize>,
    /// What it computes.
    pub role: Role,
}

impl LinearId {
    /// The output layer.
    pub const OUTPUT: Self = Self { layer: None, role: Role::Output };

    /// Roles of the linear layers in a transformer layer, in the order of the forward pass.
    pub(crate) const ROLES: [Role; 4] = [Role::Qkv, Role::Dense, Role::GateUp, Role::Down];

    fn order(self) -> (Option<usize>, usize) {
        let role = Self::ROLES.into_iter().position(|role| role == self.role);
        (self.layer, role.unwrap_or(Self::ROLES.len()))
    }
}

impl PartialOrd for LinearId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LinearId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}
