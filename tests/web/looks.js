// What a page looks like, in boxes: texts that cover each other, what reaches beyond the sides,
// and words of another language. Returns a list of complaints.
([language, known]) => {
  const complaints = [];
  const say = (what, element, more = "") => complaints.push(`${what}: ${element.tagName ?? ""}.${element.className?.baseVal ?? element.className} ${more}`.slice(0, 200));
  const unseen = ".skip, .spoken, option, script, style, noscript, template, [hidden]";

  // --- boxes, cut to what their scrolling ancestors show -----------------------------------------
  const cut = (box, element) => {
    let { left, top, right, bottom } = box;
    for (let one = element; one && one !== document.documentElement; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (style.position === "fixed") break;
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const edge = one.getBoundingClientRect();
      [left, right] = [Math.max(left, edge.left), Math.min(right, edge.right)];
      [top, bottom] = [Math.max(top, edge.top), Math.min(bottom, edge.bottom)];
    }
    return right - left > 1 && bottom - top > 1 ? { left, top, right, bottom } : null;
  };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest(unseen) || !parent.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].map((box) => cut(box, parent)).filter(Boolean);
    if (boxes.length) texts.push({ node, parent, boxes });
  }
  const lines = texts.flatMap(({ node, parent, boxes }) =>
    boxes.map((box) => {
      const slack = (box.bottom - box.top) * 0.22; // a line's box is taller than its letters
      return { node, parent, left: box.left + 1.5, right: box.right - 1.5, top: box.top + slack, bottom: box.bottom - slack };
    }),
  ).sort((a, b) => a.top - b.top);
  lines.forEach((one, at) => {
    for (let next = at + 1; next < lines.length && lines[next].top < one.bottom; next++) {
      const other = lines[next];
      if (other.node === one.node || one.parent.closest("math") || other.parent.closest("math")) continue;
      if (other.left < one.right && other.right > one.left) say("overlap", one.parent, `"${one.node.data.trim()}" and "${other.node.data.trim()}"`);
    }
  });

  // --- the sides of the window -------------------------------------------------------------------
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > wide) say("scrolls sideways", document.documentElement, `${document.documentElement.scrollWidth} > ${wide}`);
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest(unseen) || !element.checkVisibility()) continue;
    const box = cut(element.getBoundingClientRect(), element.parentElement);
    if (box && (box.left < -1 || box.right > wide + 1)) say("beyond the side", element, `${box.left.toFixed()} to ${box.right.toFixed()}`);
  }

  // --- the language ------------------------------------------------------------------------------
  const data = [...known].filter(Boolean).sort((a, b) => b.length - a.length);
  const plain = (words) => data.reduce((rest, one) => rest.replaceAll(one, " "), words);
  const names = /\b(?:conv|pool|norm|rnorm|relu|tanh|fc|drop)\d(?!\d)|\b(?:AlexNet|alexnet (?:explain|serve)\b.*|ReLU|LRN|dropout|softmax|tanh|max|exp|float32|float64|Maxpool3|Caffe|torchvision|DecompressionStream|Page Up|Page Down)(?![A-Za-z])/g;
  const check = (words, element) => {
    if (element.closest("[lang]")?.lang !== document.documentElement.lang || element.closest("math")) return;
    const rest = plain(words);
    const foreign = language === "zh" ? rest.replace(names, " ").match(/[A-Za-z]{2,}/) : rest.match(/[\u3000-\u9fff\uff00-\uffef]/);
    if (foreign) say("another language", element, words.trim());
    if (/\{\w+\}|undefined|NaN|\b(?:page|network|layer|number|unit|tour|quiz|upload|error)\.(?!html)[a-z]/.test(rest)) say("not filled in", element, words.trim());
  };
  texts.forEach(({ node, parent }) => check(node.data, parent));
  for (const name of ["aria-label", "aria-valuetext", "title", "alt", "placeholder"]) {
    document.querySelectorAll(`[${name}]`).forEach((element) => check(element.getAttribute(name), element));
  }
  return complaints;
}
