#!/usr/bin/env python3
"""ONNX Runtime's WebGPU attention: its MultiHeadAttention, and its GroupQueryAttention where that admits the shape."""

import protocol


def prepared(problem, operator, attributes, inputs, outputs):
    """(device, run) for one operator; `inputs` are arrays in its order, None for one left out."""
    import onnx
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    s = problem.shape
    names = [f"in{i}" if value is not None else "" for i, value in enumerate(inputs)]
    element = onnx.TensorProto.FLOAT16 if problem.dtype == "f16" else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, names, outputs, domain="com.microsoft", **attributes)], "attention", [],
        [helper.make_tensor_value_info(name, element, None) for name in outputs],
        # Constants of the model live on the device; the Python interface cannot place inputs there.
        [numpy_helper.from_array(value, name) for name, value in zip(names, inputs) if name])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    # Folding the constants would leave nothing to time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers = ["WebGpuExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers, enable_fallback=False)

    def run():
        return session.run(["out"], {})[0].reshape(s.batch, s.len_q, s.heads_q, s.dim).transpose(0, 2, 1, 3)

    return f"onnxruntime-webgpu {ort.__version__}", run


def in_dtype(problem, tensor):
    import numpy as np

    if problem.dtype == "bf16":
        raise ValueError("no bf16 on WebGPU")
    return np.ascontiguousarray(tensor, dtype={"f32": np.float32, "f16": np.float16}[problem.dtype])


def packed(problem, tensor):
    """(B, H, L, D) as (B, L, H·D)."""
    batch, heads, length, dim = tensor.shape
    return in_dtype(problem, tensor.transpose(0, 2, 1, 3).reshape(batch, length, heads * dim))


def multi_head(problem):
    import numpy as np

    s = problem.shape
    if s.causal:
        raise ValueError("MultiHeadAttention is not causal on WebGPU; GroupQueryAttention is")
    inputs = [packed(problem, x) for x in (problem.q, problem.repeated(problem.k), problem.repeated(problem.v))]
    if s.mask:
        # Its padding mask is not implemented on WebGPU: an additive bias instead.
        hidden = np.where(problem.keep, 0, -1e4)[:, None, None, :]
        bias = np.broadcast_to(hidden, (s.batch, 1, s.len_q, s.len_k))
        inputs += [None, None, in_dtype(problem, bias)]
    return prepared(problem, "MultiHeadAttention", {"num_heads": s.heads_q}, inputs, ["out"])


def group_query(problem):
    import numpy as np

    s = problem.shape
    if s.mask or not (s.causal or s.len_q == 1):
        raise ValueError("GroupQueryAttention is causal and takes no mask")
    # The last LQ keys are new, those before them its cache.
    (past_k, new_k), (past_v, new_v) = (np.split(x, [s.len_k - s.len_q], axis=2) for x in (problem.k, problem.v))
    cache = [in_dtype(problem, x) for x in (past_k, past_v)] if s.len_k > s.len_q else [None, None]
    lengths = [np.full((s.batch,), s.len_k - 1, np.int32), np.array(s.len_k, np.int32)]
    inputs = [*(packed(problem, x) for x in (problem.q, new_k, new_v)), *cache, *lengths]
    heads = {"num_heads": s.heads_q, "kv_num_heads": s.heads_kv}
    return prepared(problem, "GroupQueryAttention", heads, inputs, ["out", "present_k", "present_v"])


if __name__ == "__main__":
    protocol.main({"onnxruntime-mha": multi_head, "onnxruntime-gqa": group_query})
