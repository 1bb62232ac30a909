// Compiles every .wgsl file of a folder with Tint, through Dawn's null backend, and fails on any error or warning.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from 'webgpu';

const folder = process.argv[2];
const gpu = create(['backend=null']);  // must outlive the device
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice({ requiredFeatures: ['subgroups'] });

let passed = 0;
let failed = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith('.wgsl'))) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code: readFileSync(join(folder, name), 'utf8') });
  const { messages } = await module.getCompilationInfo();
  if (messages.length === 0) {
    device.createComputePipeline({ layout: 'auto', compute: { module } });
  }
  const error = await device.popErrorScope();
  if (messages.length === 0 && error === null) {
    passed += 1;
    continue;
  }
  failed += 1;
  console.log(name);
  for (const { lineNum, linePos, message } of messages) console.log(`  ${lineNum}:${linePos} ${message}`);
  if (messages.length === 0) console.log(`  ${error.message}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
