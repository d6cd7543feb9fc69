// Gaussian noise from a seed, for the schedule laboratory and for the page that draws cars.

// Draws n Gaussian numbers at each call, the same on every visit: mulberry32 for evenly spread
// ones, Box-Muller.
function gaussians(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let z = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  const gaussian = () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return (n) => Float64Array.from({ length: n }, gaussian);
}
