/** RIFF WAVE with one channel of 16-bit PCM. */

/** Bytes before the samples. */
export const WAV_HEADER_BYTES = 44;

/** A whole `.wav` file. @param samples mono, 16 bit @param sampleRate in Hz */
export function encodeWav(samples: Int16Array, sampleRate: number): Uint8Array {
  const out = new Uint8Array(WAV_HEADER_BYTES + samples.byteLength);
  const view = new DataView(out.buffer);
  const text = (at: number, four: string): void => {
    for (let i = 0; i < 4; i++) out[at + i] = four.charCodeAt(i);
  };
  text(0, "RIFF");
  view.setUint32(4, out.length - 8, true);
  text(8, "WAVE");
  text(12, "fmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * 2, true); // bytes per second
  view.setUint16(32, 2, true); // bytes per sample of all channels
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.byteLength, true);
  out.set(new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), WAV_HEADER_BYTES);
  return out;
}
