// Sorting of tables by a click on a column's head; everything is readable without it.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th").forEach((head, column) => {
    head.classList.add("sorter");
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].textContent;
      const compare = (a, b) => {
        const x = parseFloat(value(a)), y = parseFloat(value(b));
        if (Number.isNaN(x) && Number.isNaN(y)) return value(a).localeCompare(value(b));
        if (Number.isNaN(x)) return down ? -1 : 1;
        if (Number.isNaN(y)) return down ? 1 : -1;
        return x - y;
      };
      [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))).forEach((row) => body.append(row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}
