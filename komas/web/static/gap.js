// Declared gaps in a chart: a hatched band behind the candles, a dashed line where it would be too narrow to be seen.

const NARROW_PX = 6;
const HATCH_PX = 6;
const LABEL_TOP_PX = 44;

/** A primitive of lightweight-charts; `gaps` are `{ first, last, label }` with times of points, `colors` `{ line, text, back, font }`. */
export class Gaps {
  constructor() {
    this.gaps = [];
    this.colors = { line: "gray", text: "gray", back: "white", font: "11px sans-serif" };
    this.views = [
      { zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.draw(target, this.mark) }) },
      { zOrder: () => "top", renderer: () => ({ draw: (target) => this.draw(target, this.write) }) },
    ];
  }

  attached({ chart, requestUpdate }) {
    this.chart = chart;
    this.requestUpdate = requestUpdate;
  }

  detached() {
    this.chart = null;
  }

  paneViews() {
    return this.views;
  }

  /** Show other gaps, or in other colours. */
  show(gaps, colors) {
    this.gaps = gaps;
    this.colors = colors;
    this.requestUpdate?.();
  }

  /** The band of a gap in CSS pixels: [left, right], or null where it is not in the chart. */
  band({ first, last }) {
    const scale = this.chart.timeScale();
    const [left, right] = [scale.timeToCoordinate(first), scale.timeToCoordinate(last)];
    const bar = scale.logicalToCoordinate(1) - scale.logicalToCoordinate(0);
    return left === null || right === null ? null : [left - bar / 2, right + bar / 2];
  }

  draw(target, paint) {
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio: ratio }) => {
      for (const gap of this.gaps) {
        const band = this.band(gap);
        if (!band || band[1] < 0 || band[0] * ratio > bitmapSize.width) continue;
        context.save();
        paint.call(
          this,
          context,
          gap,
          band.map((x) => Math.round(x * ratio)),
          bitmapSize,
          ratio,
        );
        context.restore();
      }
    });
  }

  mark(context, _, [left, right], { height }, ratio) {
    context.strokeStyle = this.colors.line;
    context.lineWidth = ratio;
    if (right - left < NARROW_PX * ratio) return dashed(context, [(left + right) / 2], height, ratio);
    dashed(context, [left, right], height, ratio);
    hatched(context, left, right, height, ratio);
  }

  write(context, { label }, [, right], { width, height }, ratio) {
    context.font = this.colors.font.replace(/^(\d+)px/, (_, size) => `${size * ratio}px`);
    const wide = context.measureText(label).width;
    const x = right + 6 * ratio + wide < width ? right + 6 * ratio : right - wide - 12 * ratio;
    context.fillStyle = this.colors.back;
    context.fillRect(x - 2 * ratio, height - (LABEL_TOP_PX + 12) * ratio, wide + 4 * ratio, 16 * ratio);
    context.fillStyle = this.colors.text;
    context.fillText(label, x, height - LABEL_TOP_PX * ratio);
  }
}

function dashed(context, lines, height, ratio) {
  context.setLineDash([3 * ratio, 3 * ratio]);
  context.beginPath();
  for (const x of lines) {
    context.moveTo(x, 0);
    context.lineTo(x, height);
  }
  context.stroke();
}

function hatched(context, left, right, height, ratio) {
  context.beginPath();
  context.rect(left, 0, right - left, height);
  context.clip();
  context.setLineDash([]);
  context.globalAlpha = 0.45;
  context.beginPath();
  for (let x = left - height; x < right; x += HATCH_PX * ratio) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
}
