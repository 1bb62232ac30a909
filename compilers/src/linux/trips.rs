//! How often the loops of a shader iterate, read from what naga makes of its text.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use naga::{
    AddressSpace, BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, Module, Statement,
};

use crate::linux::driver::Slot;

/// The constant numbers of iterations that loops of the shader have, in the order in which they begin once every call is
/// replaced by the function's body.
pub(crate) fn trips(wgsl: &str) -> Result<Vec<u64>> {
    let module = parsed(wgsl)?;
    let mut trips = Vec::new();
    for entry in &module.entry_points {
        InFunction { module: &module, function: &entry.function }.block(&entry.function.body, &mut trips);
    }
    Ok(trips)
}

/// The value of a constant of the shader.
pub(crate) fn constant(wgsl: &str, name: &str) -> Result<Option<u64>> {
    let module = parsed(wgsl)?;
    let found = module.constants.iter().find(|(_, constant)| constant.name.as_deref() == Some(name));
    Ok(found.and_then(|(_, constant)| match module.global_expressions[constant.init] {
        Expression::Literal(Literal::U32(value)) => Some(value.into()),
        _ => None,
    }))
}

fn parsed(wgsl: &str) -> Result<Module> {
    naga::front::wgsl::parse_str(wgsl).map_err(|error| anyhow!("{}", error.emit_to_string(wgsl)))
}

/// The bytes of workgroup memory that a shader declares.
pub(crate) fn workgroup_bytes(wgsl: &str) -> Result<u32> {
    let module = parsed(wgsl)?;
    let in_workgroup = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    Ok(in_workgroup.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx())).sum())
}

/// What a shader binds in group 0.
pub(crate) fn slots(wgsl: &str) -> Result<Vec<Slot>> {
    let module = parsed(wgsl)?;
    let bound =
        module.global_variables.iter().filter_map(|(_, variable)| Some((variable.binding?.binding, variable.space)));
    let bound: BTreeMap<u32, AddressSpace> = bound.collect();
    let last = bound.keys().max().copied().unwrap_or(0);
    let slot = |binding| match bound.get(&binding) {
        Some(AddressSpace::Uniform) => Slot::Uniform,
        Some(AddressSpace::Handle) => Slot::Texture,
        _ => Slot::Storage,
    };
    Ok((0..=last).map(slot).collect())
}

#[derive(Clone, Copy)]
struct InFunction<'a> {
    module: &'a Module,
    function: &'a Function,
}

impl InFunction<'_> {
    fn block(self, block: &Block, trips: &mut Vec<u64>) {
        let statements: &[Statement] = block;
        for (at, statement) in statements.iter().enumerate() {
            match statement {
                Statement::Block(inner) => self.block(inner, trips),
                Statement::If { accept, reject, .. } => {
                    self.block(accept, trips);
                    self.block(reject, trips);
                }
                Statement::Switch { cases, .. } => cases.iter().for_each(|case| self.block(&case.body, trips)),
                Statement::Loop { body, continuing, .. } => {
                    trips.extend(self.trips(&statements[..at], body, continuing));
                    self.block(body, trips);
                    self.block(continuing, trips);
                }
                Statement::Call { function, .. } => {
                    let function = &self.module.functions[*function];
                    InFunction { function, ..self }.block(&function.body, trips);
                }
                _ => {}
            }
        }
    }

    /// `for (var i = FIRST; i < END; i += STEP)` with three constants.
    fn trips(self, before: &[Statement], body: &Block, continuing: &Block) -> Option<u64> {
        let (variable, end) = body.iter().find_map(|statement| self.bound(statement))?;
        let first =
            before.iter().rev().find_map(|statement| self.stored(statement, variable).and_then(|x| self.constant(x)));
        let first =
            first.or_else(|| self.function.local_variables[variable].init.and_then(|init| self.constant(init)))?;
        let step = continuing.iter().find_map(|statement| {
            match self.function.expressions[self.stored(statement, variable)?] {
                Expression::Binary { op: BinaryOperator::Add, right, .. } => self.constant(right),
                _ => None,
            }
        })?;
        Some(end.saturating_sub(first).div_ceil(step.max(1)))
    }

    /// The variable and its bound, if this is what ends a `for` loop.
    fn bound(self, statement: &Statement) -> Option<(Handle<LocalVariable>, u64)> {
        let Statement::If { condition, accept, reject } = statement else { return None };
        if !(accept.is_empty() && matches!(**reject, [Statement::Break])) {
            return None;
        }
        let Expression::Binary { op: BinaryOperator::Less, left, right } = self.function.expressions[*condition] else {
            return None;
        };
        let Expression::Load { pointer } = self.function.expressions[left] else { return None };
        let Expression::LocalVariable(variable) = self.function.expressions[pointer] else { return None };
        Some((variable, self.constant(right)?))
    }

    /// What a statement stores in a variable.
    fn stored(self, statement: &Statement, variable: Handle<LocalVariable>) -> Option<Handle<Expression>> {
        let Statement::Store { pointer, value } = *statement else { return None };
        match self.function.expressions[pointer] {
            Expression::LocalVariable(other) if other == variable => Some(value),
            _ => None,
        }
    }

    fn constant(self, expression: Handle<Expression>) -> Option<u64> {
        let literal = match self.function.expressions[expression] {
            Expression::Literal(literal) => literal,
            Expression::Constant(constant) => {
                match self.module.global_expressions[self.module.constants[constant].init] {
                    Expression::Literal(literal) => literal,
                    _ => return None,
                }
            }
            _ => return None,
        };
        match literal {
            Literal::U32(value) => Some(value.into()),
            Literal::I32(value) => value.try_into().ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_with_constant_bounds_are_found() {
        let wgsl = "
            const STEPS = 6u;
            var<workgroup> tile: array<vec4<f32>, 32>;
            @group(0) @binding(0) var<uniform> len: u32;
            @group(0) @binding(2) var<storage, read_write> out: array<f32>;
            fn inner(n: u32) -> f32 {
                var sum = 0.0;
                for (var i = 0u; i < 10u; i += 4u) { sum += tile[i].x; }
                return sum;
            }
            @compute @workgroup_size(1) fn main() {
                for (var n = 0u; n < len; n++) {
                    for (var step = 2u; step < STEPS; step++) { out[step] = inner(n); }
                }
            }";
        assert_eq!(trips(wgsl).expect("it is WGSL"), [4, 3]);
        assert_eq!(constant(wgsl, "STEPS").expect("it is WGSL"), Some(6));
        assert_eq!(workgroup_bytes(wgsl).expect("it is WGSL"), 512);
        let slots = slots(wgsl).expect("it is WGSL");
        assert!(matches!(slots[..], [Slot::Uniform, Slot::Storage, Slot::Storage]));
    }
}
