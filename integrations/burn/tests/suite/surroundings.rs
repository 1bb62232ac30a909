//! Tensors as programs have them: views of others, parts of one buffer, and results that burn has not computed yet.

use burn::tensor::Tensor;

use crate::{Call, assert_close, device, numbers, values};

/// Queries, keys and values as projections make them: (batch, length, heads, head size).
#[test]
fn heads_after_positions() {
    let mut call = Call::new([1, 1, 1, 1], 1);
    [call.q, call.k, call.v] = [(40, 1), (50, 2), (50, 3)].map(|(length, seed)| {
        let projected: Tensor<3> = numbers([2, length, 4 * 32], seed);
        projected.reshape([2, length, 4, 32]).swap_dims(1, 2)
    });
    call.causal().check();
}

/// Rows whose elements are not side by side are copied.
#[test]
fn transposed_rows() {
    let mut call = Call::new([2, 2, 40, 32], 40);
    call.k = numbers([2, 2, 32, 40], 4).swap_dims(2, 3);
    call.check();
}

#[test]
fn parts_of_one_tensor() {
    let packed: Tensor<3> = numbers([2, 40, 3 * 4 * 32], 1);
    let part = |n: usize| packed.clone().slice([0..2, 0..40, n * 128..(n + 1) * 128]);
    let mut call = Call::new([1, 1, 1, 1], 1);
    [call.q, call.k, call.v] = [0, 1, 2].map(|n| part(n).reshape([2, 40, 4, 32]).swap_dims(1, 2));
    call.masked().check();
}

#[test]
fn a_prefix_of_a_cache() {
    let mut call = Call::new([1, 2, 1, 32], 1);
    let caches = [2, 3].map(|seed| numbers([3, 2, 100, 32], seed));
    for length in [17, 18, 60] {
        [call.k, call.v] = caches.clone().map(|cache| cache.slice([1..2, 0..2, 0..length]));
        call.check();
    }
}

/// burn's element-wise operations are fused and run late. They must be done before, and those on the output after.
#[test]
fn lazy_neighbours() {
    let call = Call::new([2, 2, 64, 32], 64).masked();
    for round in 0..20 {
        let shift = f64::from(round) * 0.1;
        let mut inputs = Call::new([2, 2, 64, 32], 64).masked();
        [inputs.q, inputs.k, inputs.v] =
            [call.q.clone(), call.k.clone(), call.v.clone()].map(|tensor| (tensor * 2.0 + shift).tanh() - 0.25);
        let after = |out: Tensor<4>| (out * 3.0 - shift).sin().swap_dims(1, 2) + 1.0;
        assert_close(after(inputs.fused()), after(inputs.composed()), 2e-5);
    }
}

/// Layers, each of which reads what the one before wrote, without a read-back between them.
#[test]
fn chained() {
    let layers = |attend: fn(&Call) -> Tensor<4>| {
        let mut call = Call::new([1, 4, 48, 32], 48).causal();
        for _ in 0..12 {
            let out = attend(&call);
            [call.q, call.k, call.v] = [out.clone() * 3.0, (out.clone() * 2.0).sin(), (out * 5.0).tanh()];
        }
        call.v
    };
    assert_close(layers(Call::fused), layers(Call::composed), 1e-4);
}

/// burn keeps what each thread asks for apart, and the memory too.
#[test]
fn tensors_of_other_threads() {
    let wanted = values(Call::new([1, 2, 40, 32], 50).composed());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let made = std::thread::spawn(|| Call::new([1, 2, 40, 32], 50));
            std::thread::spawn(move || {
                let call = made.join().unwrap();
                (0..5).map(|_| values(call.fused())).collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in threads {
        for got in thread.join().unwrap() {
            assert!(got.iter().zip(&wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-5));
        }
    }
}

#[test]
fn without_queries_or_keys() {
    let call = Call::new([1, 2, 0, 32], 8);
    assert_eq!(call.fused().dims(), [1, 2, 0, 32]);
    let call = Call::new([1, 2, 8, 32], 0);
    assert!(values(call.fused()).iter().all(|&value| value == 0.0));
    let _ = device();
}
