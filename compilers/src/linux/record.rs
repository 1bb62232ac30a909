//! What is kept of a compiled kernel.

use serde::{Deserialize, Serialize};

use crate::linux::chip::Bound;
use crate::linux::listing::Counts;

/// One kernel, as one compiler compiled it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What it is compiled for: `prefill f32 64`.
    pub(crate) problem: String,
    pub(crate) variant: String,
    pub(crate) registers: f64,
    pub(crate) spills: f64,
    /// Subgroups that are resident on a processor at once, or threads, as the driver counts them.
    pub(crate) resident: f64,
    pub(crate) instructions: f64,
    /// Workgroup memory that the text declares.
    pub(crate) workgroup_bytes: u32,
    /// Differs from run to run, so it is not kept.
    #[serde(skip)]
    pub(crate) compile_seconds: f64,
    /// One iteration of the loop over keys, where it was found.
    pub(crate) steady: Option<Counts>,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_found: Option<String>,
    pub(crate) predicted: Option<Bound>,
}

impl Record {
    /// Whether both are the same kernel for the same problem.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.problem, &self.variant) == (&other.problem, &other.variant)
    }

    /// In what way this is worse than it was.
    pub(crate) fn worse_than(&self, before: &Self) -> Vec<String> {
        let mut worse = Vec::new();
        if self.spills > before.spills {
            worse.push(format!("{} registers spilled, {} before", self.spills, before.spills));
        }
        if self.resident < before.resident {
            worse.push(format!("{} resident, {} before", self.resident, before.resident));
        }
        let issued = |record: &Self| record.steady.map(|steady| steady.all);
        if let (Some(now), Some(then)) = (issued(self), issued(before))
            && 100 * now > 105 * then
        {
            worse.push(format!("{now} instructions in the steady loop, {then} before"));
        }
        if let (None, Some(_)) = (self.steady, before.steady) {
            let why = self.not_found.as_deref().unwrap_or_default();
            worse.push(format!("its steady loop is no longer found: {why}"));
        }
        worse
    }
}

/// What a compiler made of all kernels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The driver that it is part of, with its version.
    pub(crate) driver: String,
    pub(crate) kernels: Vec<Record>,
}

impl Kept {
    /// One record per line, so that a change shows as lines.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let lines = self.kernels.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<_>>>()?;
        let driver = serde_json::to_string(&self.driver)?;
        Ok(format!("{{\"driver\": {driver}, \"kernels\": [\n{}\n]}}\n", lines.join(",\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spills_lost_residents_and_more_instructions_are_worse() {
        let steady = |all| Some(Counts { all, ..Counts::default() });
        let before = Record {
            problem: "prefill f32 64".into(),
            variant: "tiled".into(),
            registers: 100.0,
            spills: 0.0,
            resident: 16.0,
            instructions: 1000.0,
            workgroup_bytes: 0,
            compile_seconds: 1.0,
            steady: steady(1000),
            not_found: None,
            predicted: None,
        };
        let same = Record { registers: 120.0, steady: steady(1050), ..before.clone() };
        assert!(same.worse_than(&before).is_empty());
        let worse = Record { spills: 1.0, resident: 12.0, steady: steady(1051), ..before.clone() };
        assert_eq!(worse.worse_than(&before).len(), 3);
        let lost = Record { steady: None, ..before.clone() };
        assert_eq!(lost.worse_than(&before).len(), 1);
        let text = Kept { driver: "Mesa".into(), kernels: vec![before.clone(), worse] }.to_json().expect("it is JSON");
        let kept: Kept = serde_json::from_str(&text).expect("it is JSON");
        assert!(kept.kernels[0].is_of(&before) && kept.kernels[0].steady == before.steady, "{text}");
    }
}
