//! The operators of a forward pass, by name.

use super::Role;

/// The operators of a forward pass, by their role in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// Lookup of rows of the embedding table.
    Embed,
    /// RMS norms.
    Norm,
    /// Projection to queries, keys and values.
    Qkv,
    /// Rotary embedding.
    Rotary,
    /// Write of keys and values to the cache.
    WriteKv,
    /// Attention over the cache.
    Attention,
    /// The linear layer after attention.
    OutputProjection,
    /// Residual additions.
    Add,
    /// Both halves of the feed-forward layer and their SwiGLU.
    GateUp,
    /// The linear layer back to the residual stream.
    Down,
    /// Sums over tensor-parallel ranks.
    AllReduce,
    /// Selection of the rows that need logits.
    Gather,
    /// The output layer, which computes the logits.
    LmHead,
    /// Copy of the logits to the host.
    Download,
}

impl Operator {
    /// All operators, in the order of the forward pass.
    pub const ALL: [Self; 14] = [
        Self::Embed,
        Self::Norm,
        Self::Qkv,
        Self::Rotary,
        Self::WriteKv,
        Self::Attention,
        Self::OutputProjection,
        Self::Add,
        Self::GateUp,
        Self::Down,
        Self::AllReduce,
        Self::Gather,
        Self::LmHead,
        Self::Download,
    ];

    /// Returns the operator of a linear layer; `None` for layers that run at load only.
    pub(super) fn of(role: Role) -> Option<Self> {
        match role {
            Role::Qkv => Some(Self::Qkv),
            Role::Dense => Some(Self::OutputProjection),
            Role::GateUp => Some(Self::GateUp),
            Role::Down => Some(Self::Down),
            Role::Output => Some(Self::LmHead),
            Role::Prefix => None,
        }
    }

    /// Returns the name used in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Qkv => "qkv",
            Self::Rotary => "rotary",
            Self::WriteKv => "write_kv",
            Self::Attention => "attention",
            Self::OutputProjection => "o_proj",
            Self::Add => "add",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::AllReduce => "all_reduce",
            Self::Gather => "gather",
            Self::LmHead => "lm_head",
            Self::Download => "download",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_its_place_and_word() {
        for (i, operator) in Operator::ALL.into_iter().enumerate() {
            assert_eq!(operator as usize, i);
            assert!(Operator::ALL[..i].iter().all(|other| other.name() != operator.name()));
        }
    }
}
