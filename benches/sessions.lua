-- wrk: every request with the next cookie of a file, whose lines are whole Cookie headers.
--   wrk -s sessions.lua URL -- FILE PATH
local requests, position = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", arguments[2], { ["Host"] = wrk.headers["Host"], ["Cookie"] = line })
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end
