import { loadAddon } from "../../lib/native/index.ts";
const addon = loadAddon();
const rnd = (n: number, s: number) => Float32Array.from({ length: n }, (_, i) => (Math.sin(i * 12.9898 + s) * 43758.5453) % 1);
function fbp(B: number, m: number, n: number, o: number, k: number, precision: string) {
  const P = o * k; const sizes = [B*m, B*n, P*m, P*n]; const shapes = [[B,m],[B,n],[P,m],[P,n]];
  const w = addon.createBuffer((P*m + P*n) * 4); w.write(0, rnd(P*m, 1)); w.write(P*m*4, rnd(P*n, 2));
  const up = (x: number) => Math.ceil(x / 64) * 64;
  const a = up(B*m*4), v = up(B*n*4);
  const values = [
    { dtype: "f32" as const, shape: [B,m], buffer: -1, offset: 0 }, { dtype: "f32" as const, shape: [B,n], buffer: -1, offset: a },
    { dtype: "f32" as const, shape: [P,m], buffer: 0, offset: 0 }, { dtype: "f32" as const, shape: [P,n], buffer: 0, offset: P*m*4 },
    { dtype: "f32" as const, shape: [B,o], buffer: -1, offset: a + v } ];
  const p = addon.createProgram({ device: "cpu", arenaBytes: a + v + up(B*o*4), buffers: [w], values,
    instructions: [{ op: "fbp", inputs: [0,1,2,3,-1,-1], outputs: [4,-1], attributes: { k, precision } }], feeds: [0,1], fetches: [4], scalars: 0 });
  const feeds = [rnd(B*m, 3), rnd(B*n, 4)];
  return { run: () => p.run(feeds, []), flops: 2*P*(B*m+B*n), bytes: P*(m+n)*4 };
}
const med = (x: number[]) => x.sort((a,b)=>a-b)[x.length>>1]!;
console.log("roof GF/s", Number(addon.roof("fma.f32", 1, 0.2)) / 1e9);
for (const [B,m,n,o,k,reps] of [[256,1024,2048,1000,5,5],[64,1024,2048,1000,5,9],[16,1024,2048,1000,5,15],[1,1024,1024,256,4,60],[1,1024,2048,1000,5,20]] as const) {
  const f = fbp(B,m,n,o,k,"f32"), b = fbp(B,m,n,o,k,"bf16");
  const tf: number[] = [], tb: number[] = [];
  await f.run(); await b.run();
  for (let i = 0; i < reps; i++) { let t = performance.now(); await f.run(); tf.push(performance.now()-t); t = performance.now(); await b.run(); tb.push(performance.now()-t); }
  const x = med(tf), y = med(tb);
  console.log(`B=${B} ${m}+${n} o=${o} k=${k}: f32 ${x.toFixed(3)} ms ${(f.flops/x/1e6).toFixed(1)} GF/s ${(f.bytes/x/1e6).toFixed(1)} GB/s | bf16 ${y.toFixed(3)} ms ${(f.flops/y/1e6).toFixed(1)} GF/s | ratio ${(x/y).toFixed(3)}`);
}
