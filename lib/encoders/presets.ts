/**
 * Manifest templates for the usual families. They hold configuration only: no weights are shipped or downloaded. Export
 * a checkpoint to ONNX (e.g. with Hugging Face Optimum), then write a manifest such as
 *
 *     preset: hubert-large
 *     model: ./hubert-large.onnx
 *     output: { tensors: [hidden_states.22, hidden_states.23, hidden_states.24] }
 *
 * Figures are those of the published models; tensor names depend on the export, so check them against yours.
 */
import type { EncoderManifestInput } from "./manifest.ts";

/** A transformer on raw 16 kHz audio: strides 5·2·2·2·2·2·2 = 320 samples a row, 25 ms receptive field. */
function speech(
  name: string,
  dim: number,
  normalize: "none" | "standard",
  family: string,
): EncoderManifestInput {
  return {
    name,
    modality: "audio",
    input: { kind: "waveform", layout: "BN", sampleRate: 16000, normalize, minSamples: 400 },
    output: { layout: "BTD", dim, rate: 50 },
    chunk: { seconds: 30, context: 1 },
    provenance: { family },
  };
}

const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
const CLIP = { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] };
const HALF = { mean: [0.5], std: [0.5] };

/** A network on single pictures that gives one vector each. */
function pictures(
  name: string,
  size: number,
  dim: number,
  norm: { mean: number[]; std: number[] },
  family: string,
  layout = "TD",
): EncoderManifestInput {
  return {
    name,
    modality: "visual",
    input: { kind: "frames", layout: "TCHW", size: [size, size], colour: "rgb", ...norm, fps: 25 },
    output: { layout, dim, rate: 25 },
    chunk: { frames: 16 },
    provenance: { family },
  };
}

export const PRESETS: Readonly<Record<string, EncoderManifestInput>> = {
  "hubert-base": speech("hubert-base", 768, "none", "HuBERT, arXiv 2106.07447"),
  "hubert-large": speech("hubert-large", 1024, "standard", "HuBERT, arXiv 2106.07447"),
  "wav2vec2-base": speech("wav2vec2-base", 768, "standard", "wav2vec 2.0, arXiv 2006.11477"),
  "wav2vec2-large": speech("wav2vec2-large", 1024, "standard", "wav2vec 2.0, arXiv 2006.11477"),
  "wavlm-base": speech("wavlm-base", 768, "none", "WavLM, arXiv 2110.13900"),
  "wavlm-large": speech("wavlm-large", 1024, "standard", "WavLM, arXiv 2110.13900"),
  // audeering's export already averages over time: its output `hidden_states` is [1,1024]
  "audeering-msp-dim": {
    ...speech(
      "audeering-msp-dim",
      1024,
      "standard",
      "audeering wav2vec 2.0 dimensional emotion, arXiv 2203.07378",
    ),
    input: {
      kind: "waveform",
      tensor: "signal",
      layout: "BN",
      sampleRate: 16000,
      normalize: "standard",
      minSamples: 400,
    },
    output: { tensors: ["hidden_states"], layout: "BD", dim: 1024 },
    pooling: "mean",
    chunk: undefined,
  },
  "clip-vit-base": pictures("clip-vit-base", 224, 512, CLIP, "CLIP ViT-B, arXiv 2103.00020 (image_embeds)"),
  "clip-vit-large": pictures(
    "clip-vit-large",
    224,
    768,
    CLIP,
    "CLIP ViT-L/14, arXiv 2103.00020 (image_embeds)",
  ),
  "vit-base": pictures("vit-base", 224, 768, HALF, "ViT-B/16, arXiv 2010.11929 (pooler_output)"),
  resnet50: pictures(
    "resnet50",
    224,
    2048,
    IMAGENET,
    "ResNet-50, arXiv 1512.03385 (last feature map)",
    "TDHW",
  ),
  "ir-50": pictures("ir-50", 112, 512, HALF, "IR-50 face embedding, arXiv 1801.07698"),
  manet: pictures("manet", 224, 1024, IMAGENET, "MA-Net, doi 10.1109/TIP.2021.3093397"),
};
