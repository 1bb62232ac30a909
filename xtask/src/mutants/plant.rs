//! Rewrites a source file so that each of many mistakes in it can be switched on when the tests run.
//!
//! The mistakes are made by rule: a rule names a kind of expression and what is wrong about it afterwards. All of them are
//! compiled into one program, which asks `planted::is(n)` at each place.

use anyhow::{Context, Result};
use proc_macro2::Span;
use quote::{ToTokens, quote};
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Expr, ExprBinary, ExprMethodCall, Lit, Stmt, parse_quote};

/// A mistake that the program can be told to make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mutant {
    /// From the repository's root.
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The innermost function, with its type where it is a method.
    pub(crate) function: String,
    /// The expression as it stands in the source.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) mistake: &'static str,
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, function, text, mistake } = self;
        write!(f, "{file}:{line} in {function}: `{text}`, {mistake}")
    }
}

/// Plants every mistake that the rules find in `source`, and adds each to `mutants`, where its index is its number. Returns
/// the new text.
pub(crate) fn plant(file: &str, source: &str, mutants: &mut Vec<Mutant>) -> Result<String> {
    let mut syntax = syn::parse_file(source).with_context(|| format!("{file} is not Rust"))?;
    Planter { file, path: Vec::new(), is_constant: false, mutants }.visit_file_mut(&mut syntax);
    Ok(syntax.into_token_stream().to_string())
}

struct Planter<'a> {
    file: &'a str,
    /// The types and functions around the current expression.
    path: Vec<String>,
    /// Whether the current expression is a constant, where no function can ask which mistake to make.
    is_constant: bool,
    mutants: &'a mut Vec<Mutant>,
}

/// The place and the text of an expression before its parts were rewritten.
struct Site {
    line: usize,
    text: String,
}

impl Site {
    fn of(span: Span) -> Self {
        let text = span.source_text().unwrap_or_default();
        Self { line: span.start().line, text: text.split_whitespace().collect::<Vec<_>>().join(" ") }
    }
}

impl Planter<'_> {
    /// Adds a mistake and returns its number.
    fn add(&mut self, site: &Site, mistake: &'static str) -> u32 {
        let number = u32::try_from(self.mutants.len()).expect("far fewer mistakes");
        self.mutants.push(Mutant {
            file: self.file.to_owned(),
            line: site.line,
            function: self.path.join("::"),
            text: site.text.clone(),
            mistake,
        });
        number
    }

    /// Makes a condition always true, or always false.
    fn plant_condition(&mut self, condition: &mut Expr, site: &Site) {
        if contains_let(condition) || is_literal(condition) {
            return;
        }
        let [always, never] = ["always true", "always false"].map(|mistake| self.add(site, mistake));
        let old = condition.clone();
        *condition = parse_quote!(((crate::planted::is(#always) || (#old)) && !crate::planted::is(#never)));
    }

    /// Makes a bound one larger, or one smaller.
    fn plant_bound(&mut self, bound: &mut Expr, site: &Site) {
        let [up, down] = ["bound one up", "bound one down"].map(|mistake| self.add(site, mistake));
        let old = bound.clone();
        *bound = parse_quote!(crate::planted::shift(#up, #down, #old));
    }

    fn plant_binary(&mut self, node: &mut Expr, site: &Site) {
        let Expr::Binary(ExprBinary { left, op, right, .. }) = node else { return };
        let (old_left, old_right) = (left.clone(), right.clone());
        let replacement: Option<Expr> = match op {
            BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => {
                self.plant_bound(right, site);
                None
            }
            BinOp::Eq(_) | BinOp::Ne(_) => {
                let n = self.add(site, "negated");
                let old = node.clone();
                Some(parse_quote!((crate::planted::is(#n) != (#old))))
            }
            BinOp::And(_) | BinOp::Or(_) => {
                let is_and = matches!(op, BinOp::And(_));
                for (half, mistake) in [(left, "without its left half"), (right, "without its right half")] {
                    if contains_let(half) {
                        continue;
                    }
                    let n = self.add(site, mistake);
                    let old = half.clone();
                    **half = if is_and {
                        parse_quote!((crate::planted::is(#n) || (#old)))
                    } else {
                        parse_quote!((!crate::planted::is(#n) && (#old)))
                    };
                }
                None
            }
            BinOp::Div(_) => {
                let n = self.add(site, "rounded up");
                Some(parse_quote!(crate::planted::quotient(#n, #old_left, #old_right)))
            }
            BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::BitOr(_) | BinOp::BitAnd(_) => {
                let n = self.add(site, "without its right operand");
                let old = node.clone();
                Some(parse_quote!((if crate::planted::is(#n) { #old_left } else { #old })))
            }
            _ => None,
        };
        if let Some(replacement) = replacement {
            *node = replacement;
        }
    }

    fn plant_method(&mut self, node: &mut Expr, site: &Site) {
        let Expr::MethodCall(ExprMethodCall { receiver, method, args, .. }) = node else { return };
        let method = method.to_string();
        if let ("then" | "then_some", 1) = (method.as_str(), args.len()) {
            return self.plant_condition(receiver, site);
        }
        if DECIDES.contains(&method.as_str()) {
            if let Some(Expr::Closure(closure)) = args.first_mut()
                && !matches!(&*closure.body, Expr::Block(_) | Expr::Match(_))
            {
                self.plant_condition(&mut closure.body, site);
            }
            return;
        }
        let (old, receiver) = (node.clone(), receiver_of(node));
        let Expr::MethodCall(ExprMethodCall { args, .. }) = node else { return };
        let Some(first) = args.first().cloned() else { return };
        let second = args.get(1).cloned();
        let alternatives: Vec<(&'static str, Expr)> = match method.as_str() {
            "min" | "max" => vec![("without its bound", receiver), ("only its bound", first)],
            "clamp" => {
                let second = second.into_iter();
                let upper = second.map(|second| ("without its lower end", parse_quote!((#receiver).min(#second))));
                upper.chain([("without its upper end", parse_quote!((#receiver).max(#first)))]).collect()
            }
            "div_ceil" => vec![("rounded down", parse_quote!(crate::planted::floor(#receiver, #first)))],
            "next_multiple_of" => vec![
                ("rounded down", parse_quote!(crate::planted::floor_to(#receiver, #first))),
                ("not rounded", receiver),
            ],
            "saturating_add" | "wrapping_add" => vec![("without its operand", receiver)],
            "saturating_sub" => vec![
                ("without its operand", receiver.clone()),
                ("wrapping", parse_quote!((#receiver).wrapping_sub(#first))),
            ],
            "saturating_mul" => vec![
                ("without its operand", receiver.clone()),
                ("wrapping", parse_quote!((#receiver).wrapping_mul(#first))),
            ],
            "checked_add" => vec![("wrapping", parse_quote!(Some((#receiver).wrapping_add(#first))))],
            "checked_mul" => vec![("wrapping", parse_quote!(Some((#receiver).wrapping_mul(#first))))],
            "is_multiple_of" | "contains" => {
                let [always, never] = ["always true", "always false"].map(|mistake| self.add(site, mistake));
                *node = parse_quote!(((crate::planted::is(#always) || (#old)) && !crate::planted::is(#never)));
                return;
            }
            _ => return,
        };
        let mut replacement = old;
        for (mistake, wrong) in alternatives {
            let n = self.add(site, mistake);
            let right = replacement;
            replacement = parse_quote!((if crate::planted::is(#n) { #wrong } else { #right }));
        }
        *node = replacement;
    }
}

/// Methods that take a closure returning `bool`.
const DECIDES: [&str; 11] = [
    "filter",
    "find",
    "rfind",
    "any",
    "all",
    "position",
    "retain",
    "is_some_and",
    "is_none_or",
    "take_while",
    "skip_while",
];

fn receiver_of(call: &Expr) -> Expr {
    match call {
        Expr::MethodCall(call) => (*call.receiver).clone(),
        other => other.clone(),
    }
}

fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Lit(lit) if matches!(lit.lit, Lit::Bool(_)))
}

fn contains_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => contains_let(&binary.left) || contains_let(&binary.right),
        _ => false,
    }
}

/// Whether the rules for binary expressions already cover a condition.
fn has_own_rule(expr: &Expr) -> bool {
    matches!(expr, Expr::Binary(binary) if !matches!(binary.op, BinOp::Eq(_) | BinOp::Ne(_)))
}

/// Whether leaving out a statement with this expression is a mistake to plant.
fn can_be_forgotten(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(_) | Expr::Assign(_) | Expr::Call(_) | Expr::MethodCall(_) => true,
        Expr::Try(inner) => can_be_forgotten(&inner.expr),
        _ => false,
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let text = |attribute: &syn::Attribute| attribute.meta.to_token_stream().to_string().replace(' ', "");
    attributes.iter().any(|attribute| matches!(text(attribute).as_str(), "cfg(test)" | "test"))
}

impl VisitMut for Planter<'_> {
    fn visit_item_mod_mut(&mut self, node: &mut syn::ItemMod) {
        if !is_for_tests(&node.attrs) {
            visit_mut::visit_item_mod_mut(self, node);
        }
    }

    fn visit_item_impl_mut(&mut self, node: &mut syn::ItemImpl) {
        let ty = &node.self_ty;
        let name = quote!(#ty).to_string().replace(' ', "");
        self.path.push(name.split('<').next().unwrap_or_default().to_owned());
        visit_mut::visit_item_impl_mut(self, node);
        self.path.pop();
    }

    fn visit_item_fn_mut(&mut self, node: &mut syn::ItemFn) {
        self.path.push(node.sig.ident.to_string());
        let before = self.mutants.len();
        visit_mut::visit_item_fn_mut(self, node);
        // A function that asks for a mistake cannot be `const`, nor can its callers. Other packages call the public ones.
        if self.mutants.len() > before || !matches!(node.vis, syn::Visibility::Public(_)) {
            node.sig.constness = None;
        }
        self.path.pop();
    }

    fn visit_impl_item_fn_mut(&mut self, node: &mut syn::ImplItemFn) {
        self.path.push(node.sig.ident.to_string());
        let before = self.mutants.len();
        visit_mut::visit_impl_item_fn_mut(self, node);
        // A function that asks for a mistake cannot be `const`, nor can its callers. Other packages call the public ones.
        if self.mutants.len() > before || !matches!(node.vis, syn::Visibility::Public(_)) {
            node.sig.constness = None;
        }
        self.path.pop();
    }

    fn visit_item_const_mut(&mut self, node: &mut syn::ItemConst) {
        let outer = std::mem::replace(&mut self.is_constant, true);
        self.path.push(node.ident.to_string());
        visit_mut::visit_item_const_mut(self, node);
        self.path.pop();
        self.is_constant = outer;
    }

    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}

    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}

    fn visit_item_macro_mut(&mut self, _: &mut syn::ItemMacro) {}

    fn visit_type_mut(&mut self, _: &mut syn::Type) {}

    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}

    fn visit_attribute_mut(&mut self, _: &mut syn::Attribute) {}

    fn visit_expr_repeat_mut(&mut self, node: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut node.expr);
    }

    /// The body of a closure is not a constant, even inside one.
    fn visit_expr_closure_mut(&mut self, node: &mut syn::ExprClosure) {
        let outer = std::mem::replace(&mut self.is_constant, false);
        visit_mut::visit_expr_closure_mut(self, node);
        self.is_constant = outer;
    }

    fn visit_expr_mut(&mut self, node: &mut Expr) {
        let site = Site::of(node.span());
        let condition = match &*node {
            Expr::If(inner) if !has_own_rule(&inner.cond) => Some(Site::of(inner.cond.span())),
            _ => None,
        };
        visit_mut::visit_expr_mut(self, node);
        if self.is_constant {
            return;
        }
        match node {
            Expr::Binary(_) => self.plant_binary(node, &site),
            Expr::MethodCall(_) => self.plant_method(node, &site),
            Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Not(_)) => {
                let n = self.add(&site, "negated");
                let old = node.clone();
                *node = parse_quote!((crate::planted::is(#n) != (#old)));
            }
            Expr::Range(range) => {
                for end in [&mut range.start, &mut range.end].into_iter().flatten() {
                    self.plant_bound(end, &site);
                }
            }
            Expr::If(inner) => {
                if let Some(site) = condition {
                    self.plant_condition(&mut inner.cond, &site);
                }
            }
            Expr::Macro(inner) if inner.mac.path.is_ident("matches") => {
                let n = self.add(&site, "negated");
                let old = node.clone();
                *node = parse_quote!((crate::planted::is(#n) != (#old)));
            }
            _ => {}
        }
    }

    fn visit_stmt_mut(&mut self, node: &mut Stmt) {
        let site = Site::of(node.span());
        visit_mut::visit_stmt_mut(self, node);
        if let Stmt::Expr(expr, Some(_)) = node
            && can_be_forgotten(expr)
            && !self.is_constant
        {
            let n = self.add(&site, "forgotten");
            let old = expr.clone();
            *node = parse_quote!(if !crate::planted::is(#n) { #old; });
        }
    }
}

/// The module that the planted code calls.
pub(crate) const PLANTED: &str = include_str!("planted.rs");
