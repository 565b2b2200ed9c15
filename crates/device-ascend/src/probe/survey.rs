//! Asks for every alternative, whether it is needed or not. What the self-test reports of a card.

use std::cell::RefCell;

use glmbench_device::{DeviceError, KvForm};

use super::super::choice::{
    Addition, Bias, Decode, Int8Form, KvWrite, Prefill, Reuse, Rotation, WeightFormat,
};
use super::super::core::Core;
use super::super::kv::BlockOrder;
use super::super::layout::HeadLayout;
use super::super::ops::CAUSAL_MASK_SIDE;
use super::super::settings::Chip;
use super::Probe;

/// An alternative of a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The capability, as in the choices.
    pub capability: &'static str,
    /// The name of the alternative.
    pub word: &'static str,
    /// Why its first stages are refused, if they are.
    pub refused: Option<String>,
}

/// Asks for every alternative of every capability, at the model's shapes. Graphs are left out, because they are captured and
/// run.
pub(in super::super) fn survey(
    core: &Core,
    chip: Chip,
    layout: HeadLayout,
) -> Result<Vec<Alternative>, DeviceError> {
    let memory = core.slab.take(CAUSAL_MASK_SIDE * CAUSAL_MASK_SIDE * 2, "a survey of the operators")?;
    let of_form = |kv, memory| Probe {
        core,
        layout,
        kv,
        memory,
        discarded: &[],
        refused: Vec::new(),
        single_use: RefCell::default(),
    };
    let probe = of_form(KvForm::Auto, memory);
    let mut found = Vec::new();
    let mut note = |capability, word, answer: Result<(), String>| {
        let refused = answer.err();
        let accepted = refused.is_none();
        found.push(Alternative { capability, word, refused });
        accepted
    };
    let mut weights = None;
    for choice in WeightFormat::ALL {
        if note("weights", choice.word(), probe.weights(*choice)?) {
            let preferred = chip == Chip::A2800i && *choice == WeightFormat::Plain;
            weights = weights.filter(|_| !preferred).or(Some(*choice));
        }
    }
    for form in Int8Form::ALL {
        note("int8 weights", form.word(), probe.int8(form, weights.unwrap_or(WeightFormat::Plain))?);
    }
    for choice in Addition::ALL {
        note("add", choice.word(), probe.add(*choice)?);
    }
    for choice in Bias::ALL {
        note("bias", choice.word(), probe.bias(*choice, weights.unwrap_or(WeightFormat::Plain))?);
    }
    let mut order = None;
    for choice in Decode::ALL {
        if note("decode", choice.word(), probe.decode(*choice)?) {
            order.get_or_insert(BlockOrder::of(*choice));
        }
    }
    let order = order.unwrap_or(BlockOrder::HeadToken);
    for choice in Prefill::ALL {
        note("prefill", choice.word(), probe.prefill(*choice, order)?);
    }
    for choice in KvWrite::ALL {
        note("kv", choice.word(), probe.kv(*choice, order)?);
    }
    for choice in Rotation::ALL {
        note("rotary", choice.word(), probe.rotary(*choice)?);
    }
    for choice in Reuse::ALL {
        note("reuse", choice.word(), probe.reuse(*choice));
    }
    // Over an int8 cache (C8), in the order tokens, heads.
    let probe = of_form(KvForm::C8, probe.memory);
    for choice in Decode::ALL {
        note("c8 decode", choice.word(), probe.decode(*choice)?);
    }
    for choice in Prefill::ALL {
        note("c8 prefill", choice.word(), probe.prefill(*choice, BlockOrder::TokenHead)?);
    }
    for choice in KvWrite::ALL {
        note("c8 kv", choice.word(), probe.kv(*choice, BlockOrder::TokenHead)?);
    }
    Ok(found)
}
