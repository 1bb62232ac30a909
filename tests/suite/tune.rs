//! Tuning: every candidate is timed, and its stored name finds it again.

use std::collections::HashSet;

use wgpu_attention::{Dtype, PlanError, Problem, Shape, Variant, blocking};

use crate::case::everything;
use crate::device;

#[test]
fn every_candidate_is_timed_once_and_found_by_its_name() {
    // Every operand there is, which tuning must make up.
    let problem = everything(Shape::new(1, 4, 20, 32).kv_heads(2).kv_len(70), Dtype::F32).build().unwrap();
    for device in device::all() {
        let _guard = device.enter();
        let candidates = device.attention.candidates(&problem).unwrap();
        let tuning = blocking::tune(&device.attention, &device.queue, &problem).unwrap();
        let rows = tuning.rows();
        let timed: HashSet<Variant> = rows.iter().map(|(variant, _)| variant.clone()).collect();
        assert_eq!(rows.len(), candidates.len(), "{}", device.name);
        assert_eq!(timed, candidates.iter().cloned().collect(), "{}", device.name);
        assert!(rows.is_sorted_by_key(|(_, duration)| duration), "{rows:?}");
        assert!(rows.iter().all(|(_, duration)| !duration.is_zero()), "{rows:?}");
        assert_eq!(tuning.best(), &rows[0].0);
        for variant in candidates {
            assert_eq!(device.attention.named(&problem, &variant.to_string()).unwrap(), variant);
        }
    }
}

#[test]
fn a_name_of_another_problem_or_device_is_refused() {
    let whole = Problem::builder(Shape::new(1, 2, 20, 32)).build().unwrap();
    let odd = Problem::builder(Shape::new(1, 2, 20, 31)).build().unwrap();
    for device in device::all() {
        let in_fours = &device.attention.candidates(&whole).unwrap()[0];
        let selected = &device.attention.candidates(&odd).unwrap()[0];
        for name in [in_fours.to_string(), format!("{selected} "), String::new()] {
            let error = device.attention.named(&odd, &name).unwrap_err();
            assert_eq!(error, PlanError::UnknownVariant { name, selected: selected.clone() });
        }
    }
}
