/** One clip through one encoder. */
import type { ClipFeatures, EncoderPool, ResolvedEncoder } from "../encoders/pool.ts";
import { AffuseError } from "../errors.ts";
import type { DecodeOptions } from "../media/decode.ts";
import { type ClipFiles, type Missing, openPictures, openSound } from "../media/source.ts";

/**
 * Features of a clip, or why it has none for this encoder's modality: no stream, no samples, no frames, or only empty
 * pictures, in which no face can be.
 * @param index of the encoder in the pool
 * @throws ERR_AFFUSE_DECODE, ERR_AFFUSE_FORMAT … damaged files; ERR_AFFUSE_NONFINITE the encoder gave NaN or infinity
 */
export async function clipFeatures(
  pool: EncoderPool,
  index: number,
  clip: ClipFiles,
  options: DecodeOptions = {},
): Promise<ClipFeatures | Missing> {
  const { manifest } = pool.encoders[index] as ResolvedEncoder;
  let features: ClipFeatures;
  if (manifest.input.kind !== "frames") {
    const sound = await openSound(clip, manifest.input.sampleRate, options);
    if ("missing" in sound) return sound;
    features = await pool.encodeAudio(index, sound.samples, sound.sampleRate);
  } else {
    const { fps, size, colour, fit } = manifest.input;
    const pictures = await openPictures(
      clip,
      {
        fps,
        height: size[0],
        width: size[1],
        channels: colour === "grey" ? 1 : 3,
        fit,
        perBlock: manifest.chunk?.frames ?? 32,
      },
      options,
    );
    if ("missing" in pictures) return pictures;
    features = await pool.encodeFrames(index, pictures.blocks);
    if (!features.frames) return { missing: "the video stream has no frames" };
    if (features.blankFrames === features.frames) {
      return { missing: `no face: all ${features.frames} frames are empty pictures` };
    }
  }
  if (features.rows === 0) return { missing: "the encoder gave no rows: the clip is too short for it" };
  if (!features.data.every(Number.isFinite)) {
    throw new AffuseError(
      "ERR_AFFUSE_NONFINITE",
      `encoder ${manifest.name} gave NaN or infinite features for ${clip.name}.`,
    );
  }
  return features;
}
