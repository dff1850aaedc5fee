import { loadAddon } from "../../lib/native/index.ts";
const addon = loadAddon();
const bf = (x: number) => { const f = new Float32Array([x]); const u = new Uint32Array(f.buffer); u[0] = (u[0]! + 0x7fff + ((u[0]! >>> 16) & 1)) & 0xffff0000; return f[0]!; };
const rnd = (n: number, s: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898 + s) * 43758.5453 % 1);
const t = (shape: number[], data: Float32Array) => ({ dtype: "f32" as const, shape, data });
console.log(addon.cpu().isa);
for (const [B, m, n, o, k, g] of [[1,1,1,1,1,1],[3,5,7,4,2,1],[66,131,101,40,4,1],[256,129,65,64,5,1],[120,33,257,17,3,60],[6,3000,77,9,8,2],[400,31,33,20,2,200]] as const) {
  const P = o*k, A = B/g;
  const raw = [rnd(A*m,1), rnd(B*n,2), rnd(P*m,3), rnd(P*n,4)];
  const shapes = [[A,m],[B,n],[P,m],[P,n]];
  const at = (precision: string) => ({ k, rowsPerGroup: g, precision, dropout: 0.1 });
  const run = (d: Float32Array[], p: string) => addon.call("cpu", "fbp", [...d.map((x, i) => t(shapes[i]!, x)), null, null], at(p), [true, true]).map((x) => x!.data as Float32Array);
  const y = run(raw, "bf16"), z = run(raw.map((x) => x.map(bf)), "f32");
  const bads = [0,1].map((j) => y[j]!.reduce((c, v, i) => c + (Object.is(v, z[j]![i]) ? 0 : 1), 0));
  const dz = t([B, o], rnd(B*o, 9));
  const back = (d: Float32Array[], p: string) => addon.call("cpu", "fbp.backward", [...d.map((x, i) => t(shapes[i]!, x)), null, null, null, null, dz, null], at(p), [true, true, true, true, false, false]).slice(0, 4).map((x) => x!.data as Float32Array);
  const p = back(raw, "bf16"), q = back(raw.map((x) => x.map(bf)), "f32");
  const rel = p.map((x, j) => { let e = 0, s = 0; x.forEach((v, i) => { e += (v - q[j]![i]!) ** 2; s += q[j]![i]! ** 2; }); return Math.sqrt(e / s).toExponential(1); });
  console.log(B, m, n, o, k, g, bads, rel.join(" "));
}
