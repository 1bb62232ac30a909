// What the threads of a workgroup tell each other, through workgroup memory.
var<workgroup> told: array<vec4<f32>, THREADS>;

// The sum of what the SHARE threads of a key bring, in one order for all.
fn sum_of_share(thread: u32, x: vec4<f32>) -> vec4<f32> {
    if (SHARE == 1u) { return x; }
    workgroupBarrier();  // the last readers are done
    told[thread] = x;
    workgroupBarrier();
    let first = thread / SHARE * SHARE;
    var sum = told[first];
    for (var i = 1u; i < SHARE; i++) { sum += told[first + i]; }
    return sum;
}

// The largest of what the threads of all keys bring, dimension for dimension.
fn largest_of_keys(thread: u32, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();  // the last readers are done
    told[thread] = x;
    workgroupBarrier();
    var most = told[thread % SHARE];
    for (var i = 1u; i < KEYS; i++) { most = max(most, told[thread % SHARE + i * SHARE]); }
    return most;
}

// And their sum, in one order for all.
fn sum_of_keys(thread: u32, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();  // the last readers are done
    told[thread] = x;
    workgroupBarrier();
    var sum = told[thread % SHARE];
    for (var i = 1u; i < KEYS; i++) { sum += told[thread % SHARE + i * SHARE]; }
    return sum;
}
