"use strict";
(() => {
  const table = document.getElementById("cases"), body = table.tBodies[0], rows = [...body.rows];
  const search = document.getElementById("search"), show = document.getElementById("show"), count = document.getElementById("count");
  const filter = () => {
    const words = search.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const hit = (show.value === "all" || row.dataset.kind.split(" ").includes(show.value)) && row.textContent.toLowerCase().includes(words);
      row.hidden = !hit;
      shown += hit;
    }
    count.textContent = shown + " of " + rows.length;
  };
  search.addEventListener("input", filter);
  show.addEventListener("change", filter);
  for (const head of table.tHead.rows[0].cells) {
    if (!head.dataset.sort) continue;
    head.addEventListener("click", () => {
      const at = head.cellIndex, down = head.dataset.down !== "1";
      head.dataset.down = down ? "1" : "0";
      const key = (row) => { const v = row.cells[at].dataset.value ?? row.cells[at].textContent; return head.dataset.sort === "number" ? Number(v || -1) : v.toLowerCase(); };
      rows.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows);
    });
  }
  filter();
})();
