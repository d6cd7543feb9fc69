// Random numbers that are the same on every visit: mulberry32, and Box-Muller.

export function uniforms(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let z = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
}

// Returns a function that draws n numbers from N(0, 1).
export function gaussians(seed) {
  const uniform = uniforms(seed);
  const gaussian = () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return (n) => Float64Array.from({ length: n }, gaussian);
}
