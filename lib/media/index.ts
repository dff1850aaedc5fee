export { type DecodeOptions, decodeAudio, decodeFrames, type PictureRequest, probeMedia } from "./decode.ts";
export { readFaces, readFacesHeader } from "./faces.ts";
export { countBlank, fitFrames, type FrameBlock } from "./image.ts";
export { resample } from "./resample.ts";
export { type ClipFiles, type Missing, openPictures, openSound, type Pictures } from "./source.ts";
export { type Audio, MAX_SECONDS, readWav } from "./wav.ts";
