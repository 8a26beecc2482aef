// From a photograph to the aligned crop that a network takes, as `efq align` computes it.
// Images are {width, height, data} with RGBA bytes. Points are [x, y], whole numbers at pixel centres.

/** The similarity that maps two points to two others, as [a, b, x, y]: (a + bi) z + (x + yi). */
export function similarity([first, second], [to, next]) {
  const [sx, sy] = [second[0] - first[0], second[1] - first[1]];
  const [tx, ty] = [next[0] - to[0], next[1] - to[1]];
  const length = sx * sx + sy * sy;
  if (length < 1e-12) throw new RangeError("Both eyes are at the same place.");
  const [a, b] = [(tx * sx + ty * sy) / length, (ty * sx - tx * sy) / length];
  return [a, b, to[0] - a * first[0] + b * first[1], to[1] - b * first[0] - a * first[1]];
}

/** The image at half its size, each pixel the mean of up to four. */
export function halved({ width, height, data }) {
  const [w, h] = [toEven(width / 2), toEven(height / 2)];
  const out = new Uint8ClampedArray(4 * w * h);
  for (let y = 0, o = 0; y < h; y++) {
    const below = 2 * y + 1 < height ? 4 * width : 0;
    for (let x = 0; x < w; x++) {
      const at = 4 * (2 * y * width + 2 * x);
      const right = 2 * x + 1 < width ? 4 : 0;
      for (let c = 0; c < 4; c++, o++) {
        const i = at + c;
        out[o] = (data[i] + data[i + right] + data[i + below] + data[i + below + right] + 2) >> 2;
      }
    }
  }
  return { width: w, height: h, data: out };
}

/** Round halves to the even neighbour. */
function toEven(value) {
  return value % 2 === 1.5 ? Math.ceil(value) : Math.floor(value);
}

/** The crop of width x height with both eyes where the template has them. */
export function aligned(image, eyes, template, width, height) {
  let [a, b, tx, ty] = similarity(eyes, template);
  // a crop much smaller than the face would alias: halve the photograph first
  while (Math.hypot(a, b) < 0.5 && Math.min(image.width, image.height) > 2) {
    image = halved(image);
    [a, b] = [2 * a, 2 * b];
  }
  const square = a * a + b * b;
  const out = new Uint8ClampedArray(4 * width * height);
  for (let y = 0, o = 0; y < height; y++) {
    for (let x = 0; x < width; x++, o += 4) {
      const [u, v] = [x - tx, y - ty];
      blend(image, (a * u + b * v) / square, (a * v - b * u) / square, out, o);
    }
  }
  return { width, height, data: out };
}

/** Write the bilinear value at (x, y) to out[o..o+3]; outside of the image it is black. */
function blend({ width, height, data }, x, y, out, o) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [fx, fy] = [x - left, y - top];
  for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) {
      const [i, j] = [left + (k & 1), top + (k >> 1)];
      if (i < 0 || j < 0 || i >= width || j >= height) continue;
      sum += (k & 1 ? fx : 1 - fx) * (k >> 1 ? fy : 1 - fy) * data[4 * (j * width + i) + c];
    }
    out[o + c] = sum;
  }
  out[o + 3] = 255;
}
