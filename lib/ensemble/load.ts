/** Trained runs as one predictor: every fold of every structure is a member. */
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { type FeatureSource, FeatureMemory, type StreamInfo } from "../data/features.ts";
import type { ClipLabel } from "../data/labels.ts";
import { AffuseError } from "../errors.ts";
import { argmax } from "../metrics/evaluate.ts";
import type { Model } from "../models/types.ts";
import { type CheckpointInfo, readCheckpoint } from "../train/checkpoint.ts";
import type { ModelFactory } from "../train/fold-job.ts";
import type { Precision } from "../graph/compile.ts";
import { nativeModels } from "../train/native-models.ts";
import {
  type ClipPrediction,
  type DetailedPrediction,
  predictModel,
  readPredictions,
} from "../train/predict.ts";
import type { Standardization } from "../data/dataset.ts";
import { align, type CombineMethod, combine, fitWeights, reorderClasses } from "./combine.ts";

export interface Member {
  /** Folder of the fold inside its run. */
  folder: string;
  structure: string;
  fold: number;
  info: CheckpointInfo;
  model: Model;
  /** By stream name of the checkpoint. */
  standardization: ReadonlyMap<string, Standardization> | null;
}

/** What the ensemble says about one clip. */
export interface EnsemblePrediction extends ClipPrediction {
  /** Class name of the largest posterior. */
  emotion: string;
  /**
   * Per stream the weight of each of the clip's frames, mean over the members that use the stream; sums to 1;
   * empty where the clip lacks the stream.
   */
  attention: Record<string, Float32Array>;
  /** Streams that the members use and the clip lacks. */
  missing: string[];
}

export interface EnsembleOptions {
  /**
   * Default "mean". "fitted" fits one weight per structure on the runs' validation predictions; needs
   * `labels`.
   */
  method?: CombineMethod;
  temperature?: number;
  clampValence?: readonly [number, number];
  /** Only these structures. Default: all that the runs hold. */
  structures?: readonly string[];
  /** Truth of the validation clips, for "fitted". */
  labels?: ReadonlyMap<string, Pick<ClipLabel, "emotion">>;
  device?: string;
  /** Of the operands of matrix products. "f32" by default, also for models that were trained with bf16. */
  precision?: Precision;
  threads?: number;
  /** Makes the models. Default: the native ones. */
  createModel?: ModelFactory;
}

/** Folders of trained folds: RUN/<structure>/fold<k> with best.safetensors. @throws ERR_AFFUSE_NOT_FOUND */
export function findMembers(
  run: string,
  structures?: readonly string[],
): { folder: string; structure: string; fold: number }[] {
  const list = (folder: string) =>
    existsSync(folder) ? readdirSync(folder, { withFileTypes: true }).filter((e) => e.isDirectory()) : [];
  const found = list(run).flatMap(({ name: structure }) =>
    list(path.join(run, structure)).flatMap(({ name }) => {
      const fold = /^fold(\d+)$/.exec(name)?.[1];
      const folder = path.join(run, structure, name);
      const wanted = fold !== undefined && (!structures || structures.includes(structure));
      return wanted && existsSync(path.join(folder, "best.safetensors"))
        ? [{ folder, structure, fold: Number(fold) }]
        : [];
    }),
  );
  if (found.length === 0) {
    throw new AffuseError(
      "ERR_AFFUSE_NOT_FOUND",
      `${run}: expected trained folds (<structure>/fold<k>/best.safetensors), found none${structures ? ` of ${structures.join(", ")}` : ""}.`,
      "Run `affuse train` first.",
    );
  }
  return found.sort((a, b) =>
    a.structure === b.structure ? a.fold - b.fold : a.structure < b.structure ? -1 : 1,
  );
}

/**
 * One run's weights per structure, fitted on its validation predictions (each fold's models answered the same
 * clips).
 */
function fittedWeights(
  members: readonly Member[],
  labels: EnsembleOptions["labels"],
  classes: readonly string[],
): number[] {
  if (!labels)
    throw new AffuseError(
      "ERR_AFFUSE_ENSEMBLE",
      "fitted weights need the labels of the validation clips.",
      "Use the mean, or give the labels.",
    );
  const structures = [...new Set(members.map((member) => member.structure))];
  const aligned = align(
    structures.map((structure) => ({
      name: structure,
      classes,
      clips: members
        .filter((member) => member.structure === structure)
        .flatMap((member, k) => {
          const { classes: own, clips } = readPredictions(path.join(member.folder, "predictions.json"));
          const reorder = reorderClasses(own, classes, member.folder);
          // A clip may validate in several folds: (clip, run, fold) is what the structures have in common.
          return clips
            .filter((clip) => clip.part === "validation")
            .map((clip) => reorder({ ...clip, name: `${clip.name}\n${k}\n${member.fold}` }));
        }),
    })),
  ).clips.filter(({ answers }) => answers.every((answer) => answer !== null));
  const truth = aligned.map(({ name }) => labels.get(name.split("\n")[0] as string)?.emotion ?? -1);
  if (!truth.some((emotion) => emotion >= 0))
    throw new AffuseError(
      "ERR_AFFUSE_ENSEMBLE",
      "no labelled validation clip that every structure has answered.",
    );
  const weights = fitWeights(
    structures.map((_, s) => aligned.map(({ answers }) => answers[s] as ClipPrediction)),
    truth,
  );
  return members.map(({ structure }) => {
    const s = structures.indexOf(structure);
    return (weights[s] as number) / members.filter((member) => member.structure === structure).length;
  });
}

/** Several trained models that answer as one. */
export class Ensemble {
  readonly members: readonly Member[];
  /** Order of every vector that predict() returns: the first member's. */
  readonly classes: readonly string[];
  /** Streams that at least one member uses, with the extractors' manifests. */
  readonly streams: readonly StreamInfo[];
  /** One per member; null: per clip (entropy) . */
  readonly weights: readonly number[] | null;
  readonly #options: EnsembleOptions;

  /** Use loadEnsemble(). */
  constructor(members: readonly Member[], options: EnsembleOptions) {
    const [first] = members;
    if (!first) throw new AffuseError("ERR_AFFUSE_ENSEMBLE", "expected at least one member, got none.");
    this.members = members;
    this.classes = first.info.classes;
    this.#options = options;
    const streams = new Map<string, StreamInfo>();
    for (const { folder, info, model } of members) {
      reorderClasses(info.classes, this.classes, folder); // refuses other class sets now
      for (const { name } of model.streams) {
        const stream = info.streams.find((candidate) => candidate.name === name) as StreamInfo;
        const other = streams.get(name);
        if (other && (other.dim !== stream.dim || other.modality !== stream.modality)) {
          throw new AffuseError(
            "ERR_AFFUSE_STREAMS",
            `${folder} uses the stream ${name} with ${stream.dim} dimensions (${stream.modality}), another member with ${other.dim} (${other.modality}).`,
          );
        }
        if (!other) streams.set(name, stream);
      }
    }
    this.streams = [...streams.values()];
    this.weights =
      options.method === "entropy"
        ? null
        : options.method === "fitted"
          ? fittedWeights(members, options.labels, this.classes)
          : members.map(() => 1 / members.length);
  }

  /**
   * Answers for clips, in their order.
   * @param features must have the ensemble's streams by name (absent ones count as missing for every clip);
   * further streams are ignored
   * @throws ERR_AFFUSE_DIMENSION a stream of another width
   */
  async predict(features: FeatureSource, clips: readonly string[]): Promise<EnsemblePrediction[]> {
    const answers = await this.answers(features, clips);
    const source = this.#view(features);
    const { method, temperature, clampValence } = this.#options;
    return clips.map((name, i) => {
      const members = answers.map((list) => list[i] as DetailedPrediction);
      const combined = combine(members, {
        ...(method && { method }),
        ...(temperature !== undefined && { temperature }),
        ...(clampValence && { clampValence }),
        ...(this.weights && { weights: this.weights }),
      });
      return {
        ...combined,
        emotion: this.classes[argmax(combined.posteriors)] as string,
        attention: this.#attention(members),
        missing: source.streams.flatMap((stream, s) => (source.length(name, s) === 0 ? [stream.name] : [])),
      };
    });
  }

  /** Every member's own answers: [member][clip], in the ensemble's class order. Errors as predict(). */
  async answers(features: FeatureSource, clips: readonly string[]): Promise<DetailedPrediction[][]> {
    const source = this.#view(features);
    const out: DetailedPrediction[][] = [];
    for (const { model, info, standardization } of this.members) {
      const stats =
        standardization &&
        source.streams.map(
          // A stream that this member has never seen is not one that it reads.
          ({ name, dim }) =>
            standardization.get(name) ?? {
              mean: new Float32Array(dim),
              scale: new Float32Array(dim).fill(1),
            },
        );
      const reorder = reorderClasses(info.classes, this.classes, info.structure);
      const own = await predictModel(model, source, clips, stats ? { standardization: stats } : {});
      out.push(own.map((answer) => ({ ...answer, ...reorder(answer) })));
    }
    return out;
  }

  /** One clip from memory. @param clip stream name → [T,D] row-major; null or left out when missing */
  async predictOne(
    clip: Readonly<Record<string, Float32Array | null>>,
    name = "clip",
  ): Promise<EnsemblePrediction> {
    const [answer] = await this.predict(new FeatureMemory(this.streams, [[name, clip]]), [name]);
    return answer as EnsemblePrediction;
  }

  dispose(): void {
    for (const { model } of this.members) model.dispose();
  }

  /** The source's streams in the ensemble's order, by name; streams that it has not are empty. */
  #view(features: FeatureSource): FeatureSource {
    const index = this.streams.map(({ name, dim }) => {
      const s = features.streams.findIndex((stream) => stream.name === name);
      const got = features.streams[s];
      if (got && got.dim !== dim) {
        throw new AffuseError(
          "ERR_AFFUSE_DIMENSION",
          `stream ${name}: the models were trained with ${dim} dimensions, the features have ${got.dim}.`,
          "Extract the features with the encoder of the training.",
        );
      }
      return s;
    });
    return {
      streams: this.streams,
      clips: features.clips,
      length: (clip, s) => (index[s] === -1 ? 0 : features.length(clip, index[s] as number)),
      load: async (clip, s) => (index[s] === -1 ? null : features.load(clip, index[s] as number)),
    };
  }

  #attention(members: readonly DetailedPrediction[]): Record<string, Float32Array> {
    const out: Record<string, Float32Array> = {};
    for (const { name } of this.streams) {
      const all = members.flatMap((member) => (member.attention[name] ? [member.attention[name]] : []));
      const frames = all[0]?.length ?? 0;
      out[name] = Float32Array.from(
        { length: frames },
        (_, t) => all.reduce((sum, weights) => sum + (weights[t] as number), 0) / all.length,
      );
    }
    return out;
  }
}

/** Many members share the memory: each keeps few compiled programs. */
const MEMBER_CACHE_BYTES = 32 * 2 ** 20;

/**
 * Loads trained runs as one ensemble. Dispose it when done.
 * @param runs run folders
 * @throws ERR_AFFUSE_NOT_FOUND, ERR_AFFUSE_FORMAT, ERR_AFFUSE_CLASSES, ERR_AFFUSE_STREAMS,
 * ERR_AFFUSE_ENSEMBLE
 */
export async function loadEnsemble(
  runs: readonly string[],
  options: EnsembleOptions = {},
): Promise<Ensemble> {
  const create =
    options.createModel ?? (await nativeModels({ ...options, programCacheBytes: MEMBER_CACHE_BYTES }));
  const members: Member[] = [];
  try {
    for (const run of runs) {
      for (const found of findMembers(run, options.structures)) {
        const { info, state, standardization } = readCheckpoint(path.join(found.folder, "best.safetensors"));
        const model = create(info.config, info.streams, info.classes);
        members.push({
          ...found,
          info,
          model,
          standardization:
            standardization &&
            new Map(standardization.map((stat, s) => [info.streams[s]?.name as string, stat])),
        });
        model.load(state);
      }
    }
    return new Ensemble(members, options);
  } catch (error) {
    for (const { model } of members) model.dispose();
    throw error;
  }
}
