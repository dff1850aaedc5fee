/** The synthetic audio-visual corpus: clips with known truth (see corpus.ts for the layout, plan.ts for the design). */
export { type Ceiling, type Ceilings, ceilings, type View } from "./ceilings.ts";
export { type CorpusRecipe, facesPath, planCorpus, type RenderedClip, renderClip, wavPath } from "./clip.ts";
export {
  type ClipTruth,
  type CorpusInfo,
  DEFAULT_RECIPE,
  readCorpus,
  readTruth,
  type SynthOptions,
  type SynthProgress,
  synthesise,
} from "./corpus.ts";
export { CLASSES, type ClassName, type ClipPlan, FPS, type Interval, SAMPLE_RATE } from "./plan.ts";
export { encodeVideos, videoPath } from "./video.ts";
