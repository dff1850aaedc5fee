/** Progress of training on standard error: one bar per fold on a terminal, nothing elsewhere. */
import { SingleBar } from "cli-progress";
import type { TrainEvent } from "./fold-job.ts";

export interface TrainProgress {
  event: (event: TrainEvent) => void;
  /** Ends the bar; further calls do nothing. */
  stop: () => void;
}

/** @param visible false: silent */
export function trainProgress(visible: boolean): TrainProgress {
  if (!visible) return { event: () => {}, stop: () => {} };
  let bar: SingleBar | null = null;
  const stop = () => {
    bar?.stop();
    bar = null;
  };
  const state = { loss: "", best: "" };
  return {
    stop,
    event: (event) => {
      if (event.type === "fold") {
        stop();
        if (event.finished) return;
        state.best = "";
        bar = new SingleBar(
          {
            format: `${event.structure} fold ${event.fold + 1}/${event.folds} {bar} epoch {epoch}/${event.epochs} {loss} {best} {eta_formatted}`,
            stream: process.stderr,
            hideCursor: true,
            stopOnComplete: false,
          },
          { barCompleteChar: "█", barIncompleteChar: "░", format: "" },
        );
        bar.start(event.epochs * event.steps, (event.resumedAt ?? 0) * event.steps, {
          epoch: event.resumedAt ?? 0,
          loss: "",
          best: "",
        });
      } else if (event.type === "step") {
        state.loss = `loss ${event.loss.toFixed(3)}`;
        bar?.update(event.epoch * event.batches + event.batch, { epoch: event.epoch + 1, ...state });
      } else if (event.type === "epoch") {
        if (event.best && event.record.validation.metric !== null)
          state.best = `best ${event.record.validation.metric.toFixed(4)}`;
        bar?.update({ ...state });
      } else stop();
    },
  };
}
