// Texts that stand out from what lies behind them by less than 4.5 to 1 (WCAG 2.2, 1.4.3).
() => {
  const parts = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) =>
    top.slice(0, 3).map((value, i) => value * top[3] + under[i] * (1 - top[3]));
  const linear = (value) =>
    value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const shine = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const unseen = element.disabled || element.closest("svg, script, noscript, .unseen");
    if (!own || unseen || !element.checkVisibility()) continue;
    const around = [];
    for (let e = element; e; e = e.parentElement) around.unshift(getComputedStyle(e));
    let back = [255, 255, 255];
    let shown = 1;
    for (const style of around) {
      back = over(parts(style.backgroundColor), back);
      shown *= style.opacity;
    }
    const ink = parts(getComputedStyle(element).color);
    const front = over([...ink.slice(0, 3), ink[3] * shown], back);
    const [high, low] = [shine(front), shine(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) weak.push(`${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return weak;
}
