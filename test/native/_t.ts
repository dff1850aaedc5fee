import { loadAddon } from "../../lib/native/index.ts";
const addon = loadAddon();
const bf = (x: number) => { const f = new Float32Array([x]); const u = new Uint32Array(f.buffer); if (Number.isNaN(x)) return x; u[0] = (u[0]! + 0x7fff + ((u[0]! >>> 16) & 1)) & 0xffff0000; return f[0]!; };
const rnd = (n: number, s: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 12.9898 + s) * 43758.5453 % 1);
const t = (shape: number[], data: Float32Array) => ({ dtype: "f32" as const, shape, data });
console.log(addon.cpu().isa);
for (const [R, D, O] of [[1,1,1],[3,5,7],[17,33,65],[1,1500,9],[70,301,200],[130,257,129],[100,2049,64],[400,77,50],[256,1281,40]] as const) {
  const x = rnd(R*D, 1), W = rnd(O*D, 2), b = rnd(O, 3), dy = rnd(R*O, 4);
  const run = (x: Float32Array, W: Float32Array, precision: string) => addon.call("cpu", "linear", [t([R, D], x), t([O, D], W), t([O], b)], { activation: "tanh", precision }, [true])[0]!.data as Float32Array;
  const y = run(x, W, "bf16"), z = run(x.map(bf), W.map(bf), "f32");
  let bad = 0; for (let i = 0; i < y.length; i++) if (!Object.is(y[i], z[i])) bad++;
  const back = (x: Float32Array, W: Float32Array, dy: Float32Array, precision: string) => addon.call("cpu", "linear.backward", [t([R, D], x), t([O, D], W), t([O], b), null, null, t([R, O], dy)], { activation: "none", precision }, [true, true, true]).map((o) => o!.data as Float32Array);
  const p = back(x, W, dy, "bf16"), q = back(x.map(bf), W.map(bf), dy.map(bf), "f32");
  const bads = [0, 1].map((j) => p[j]!.reduce((n, v, i) => n + (Object.is(v, q[j]![i]) ? 0 : 1), 0));
  console.log(R, D, O, bad, bads, y[0], z[0]);
}
